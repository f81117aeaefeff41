"""How much this worker takes of the queue: what it can begin soon, and no more.

What it holds and cannot begin, no other worker gets. So the rest waits in the stream, where whoever has a free place
takes it. How much "soon" is depends on how long calls take: a few when they take seconds, more when they take
milliseconds, because then the next ones must be here already.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from services.llm_worker.config import Config
from services.llm_worker.models import Resolved
from services.runtime.clock import Clock

DELAY_MAX_S: Final = 4.0
DOUBLINGS_MAX: Final = 3
SOON_S: Final = 0.1
"""What begins within that time is pulled ahead: many times as long as the broker needs to send it."""
AHEAD_LEAST: Final = 2
AHEAD_MOST: Final = 32
"""A burst of slow calls behind many quick ones costs no more than this, or than one call for each place."""
WEIGHT: Final = 0.2
MODELS_MAX: Final = 1_000


class Pace:
    """How long a call has kept its place lately; unknown until one has ended."""

    __slots__ = ("_usual_s",)

    def __init__(self) -> None:
        self._usual_s: float | None = None

    def ended(self, took_s: float) -> None:
        """One more has ended."""
        self._usual_s = took_s if self._usual_s is None else self._usual_s + WEIGHT * (took_s - self._usual_s)

    def ahead(self, places: int, within_s: float, most: int) -> int:
        """How many that wait now would have one of `places` within that time."""
        if self._usual_s is None:
            return min(AHEAD_LEAST, most)
        return min(most, max(AHEAD_LEAST, int(places * within_s / max(self._usual_s, 1e-6))))


class Admission:
    """Counts the calls that are here. `changed` is called when more may be taken."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._calls: Counter[str] = Counter()
        self._aside = self._settling = 0
        self._pace = Pace()
        self._paces: OrderedDict[str, Pace] = OrderedDict()
        self.changed: Callable[[], None] = lambda: None

    def credit(self) -> int:
        """How many requests this worker may hold now."""
        places = self._config.in_flight_max
        ahead = self._pace.ahead(places, SOON_S, max(places, AHEAD_MOST))
        return min(self._config.waiting_max, places + ahead + self._aside + self._settling)

    def full(self, resolved: Resolved) -> bool:
        """Whether one more call would wait behind too many that are here for what its model alone has too little of."""
        config = resolved.config
        places, most = config.slots, self._config.waiting_per_model_max
        if places is not None:
            ahead = self._pace_of(resolved).ahead(places, DELAY_MAX_S, most)
        elif config.requests_per_minute or config.concurrent or config.usd_per_day:
            places, ahead = self._config.in_flight_max, most
        else:
            return False
        return self._calls[resolved.used] >= places + ahead

    def enter(self, resolved: Resolved) -> None:
        """A call begins to wait."""
        self._calls[resolved.used] += 1

    def leave(self, resolved: Resolved) -> None:
        """A call is over."""
        self._calls[resolved.used] -= 1
        if not self._calls[resolved.used]:
            del self._calls[resolved.used]

    def settling(self, requests: int, until: "asyncio.Future[Any]") -> None:
        """Answered, but held until the ledger has it and the run knows: that needs no place."""
        self._settling += requests
        self.changed()

        def settled(_: "asyncio.Future[Any]") -> None:
            self._settling -= requests

        until.add_done_callback(settled)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A call waits for what its model alone has too little of: the places are for others meanwhile."""
        self._aside += 1
        self.changed()
        try:
            yield
        finally:
            self._aside -= 1

    @contextmanager
    def over(self, resolved: Resolved) -> Iterator[None]:
        """Its model has answered a call: what is done about it keeps no place from others, not of that model either."""
        self.leave(resolved)
        try:
            with self.aside():
                yield
        finally:
            self.enter(resolved)

    @contextmanager
    def at_work(self, resolved: Resolved) -> Iterator[None]:
        """A call keeps its place."""
        began_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            took_s = self._clock.monotonic_s() - began_s
            self._pace.ended(took_s)
            self._pace_of(resolved).ended(took_s)

    def _pace_of(self, resolved: Resolved) -> Pace:
        pace = self._paces.get(resolved.shown)
        if pace is None:
            pace = self._paces[resolved.shown] = Pace()
            if len(self._paces) > MODELS_MAX:
                self._paces.popitem(last=False)
        return pace


def delay_s(delivered: int) -> float:
    """For how long a request is put off that was delivered so many times: a long queue must not come every second."""
    return min(DELAY_MAX_S, float(1 << min(delivered - 1, DOUBLINGS_MAX)))


def waited_s(delivered: int) -> float:
    """For how long it was put off before, at most."""
    early = min(delivered - 1, DOUBLINGS_MAX)
    return sum(delay_s(number) for number in range(1, early + 1)) + (delivered - 1 - early) * DELAY_MAX_S
