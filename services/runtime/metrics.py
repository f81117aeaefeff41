"""Counters, gauges and histograms of one process: exactly those of `contracts.metrics`.

Values live in plain dictionaries, so that counting costs well under a microsecond and nothing is imported for it;
prometheus_client reads them when somebody asks for `/metrics`.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from contracts.metrics import BY_NAME, MetricSpec

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SECONDS_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
COUNT_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

SERIES_MAX: Final = 1_000
"""Of one metric. Some labels are what strangers say, the names of models: beyond this they are counted together."""
HISTOGRAMS_MAX: Final = 200
"""The same of a histogram, of which each series is some twenty lines of `/metrics`."""
OTHER: Final = "other"

_Key = tuple[str, tuple[tuple[str, str], ...]]


class _Series:
    """One time series: its label values in the order of the spec, and its value or its buckets."""

    __slots__ = ("bounds", "buckets", "labels", "spec", "value")

    def __init__(self, spec: MetricSpec, labels: tuple[str, ...]) -> None:
        self.spec = spec
        self.labels = labels
        self.value = 0.0
        self.bounds = spec.buckets or (SECONDS_BUCKETS if spec.name.endswith("_seconds") else COUNT_BUCKETS)
        self.buckets = [0] * (len(self.bounds) + 1) if spec.kind == "histogram" else []


class Metrics:
    """Counts what the catalogue names. A name, a kind or a label that it does not hold is a KeyError: a bug."""

    def __init__(self) -> None:
        self._series: dict[_Key, _Series] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        for spec in BY_NAME.values():
            if not spec.labels:
                self._find(spec.kind, (spec.name, ()))

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter; `amount` is not negative."""
        key = (name, tuple(labels.items()))
        series = self._series.get(key) or self._find("counter", key)
        if series.spec.kind != "counter" or amount < 0:
            raise KeyError(f"{name} is a {series.spec.kind}, grown by {amount}")
        with self._lock:
            series.value += amount

    def counter(self, name: str, **labels: str) -> Callable[[float], None]:
        """What adds to one series of a counter, found once: for what is counted many thousand times a second."""
        series, lock = self._find("counter", (name, tuple(labels.items()))), self._lock

        def add(amount: float) -> None:
            with lock:
                series.value += amount

        return add

    def histogram(self, name: str, **labels: str) -> Callable[[float], None]:
        """What puts values into one series of a histogram, found once."""
        series, lock = self._find("histogram", (name, tuple(labels.items()))), self._lock

        def put(value: float) -> None:
            with lock:
                series.value += value
                series.buckets[bisect_left(series.bounds, value)] += 1

        return put

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        key = (name, tuple(labels.items()))
        series = self._series.get(key) or self._find("gauge", key)
        if series.spec.kind != "gauge":
            raise KeyError(f"{name} is a {series.spec.kind}")
        series.value = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put one value into a histogram."""
        key = (name, tuple(labels.items()))
        series = self._series.get(key) or self._find("histogram", key)
        if series.spec.kind != "histogram":
            raise KeyError(f"{name} is a {series.spec.kind}")
        with self._lock:
            series.value += value
            series.buckets[bisect_left(series.bounds, value)] += 1

    def observer(self, name: str, **labels: str) -> Callable[[float], None]:
        """What puts values into one histogram, for whoever does it all the time."""
        series = self._find("histogram", (name, tuple(labels.items())))

        def observe(value: float) -> None:
            with self._lock:
                series.value += value
                series.buckets[bisect_left(series.bounds, value)] += 1

        return observe

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge stands at, the sum of a histogram; 0 when it was never touched."""
        wanted = tuple(str(labels[label]) for label in BY_NAME[name].labels)
        return next((one.value for one in self._distinct() if one.spec.name == name and one.labels == wanted), 0.0)

    def collect(self) -> Iterable[Any]:
        """The families, as prometheus_client's registry asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        by_name: dict[str, list[_Series]] = {}
        for series in self._distinct():
            by_name.setdefault(series.spec.name, []).append(series)
        for name, members in sorted(by_name.items()):
            spec = BY_NAME[name]
            if spec.kind == "histogram":
                family: Any = HistogramMetricFamily(name, spec.meaning, labels=spec.labels)
                for series in members:
                    bounds = [*map(str, series.bounds), "+Inf"]
                    counts = [float(count) for count in accumulate(series.buckets)]
                    family.add_metric(series.labels, list(zip(bounds, counts, strict=True)), series.value)
            else:
                make = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
                family = make(name, spec.meaning, labels=spec.labels)
                for series in members:
                    family.add_metric(series.labels, series.value)
            yield family

    @cached_property
    def registry(self) -> "CollectorRegistry":
        """The registry behind `/metrics`; others may add their collectors to it."""
        from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        return registry

    def render(self) -> bytes:
        """The text format of Prometheus."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def _distinct(self) -> list[_Series]:
        # The same labels in another order are another key of the same series.
        return list({id(series): series for series in list(self._series.values())}.values())

    def _find(self, kind: str, key: _Key) -> _Series:
        name, items = key
        spec = BY_NAME[name]
        labels = dict(items)
        if spec.kind != kind or set(labels) != set(spec.labels):
            raise KeyError(f"{name} is a {spec.kind} with labels {spec.labels}, not a {kind} with {tuple(labels)}")
        values = tuple(str(labels[label]) for label in spec.labels)
        own = (name, tuple(zip(spec.labels, values, strict=True)))
        with self._lock:
            found = self._series.get(own)
            if found is None and self._counts[name] >= (HISTOGRAMS_MAX if kind == "histogram" else SERIES_MAX):
                # Not kept under its own labels either: that would grow as well.
                shared = (name, tuple((label, OTHER) for label in spec.labels))
                return self._series.setdefault(shared, _Series(spec, (OTHER,) * len(values)))
            if found is None:
                found = self._series[own] = _Series(spec, values)
                self._counts[name] += 1
            self._series[key] = found
        return found
