"""How busy this worker is: calls at a provider, and those that wait for a place. It is what the pool is scaled by."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from contracts.errors import Rejected
from contracts.streams import ConsumerSpec
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.metrics import Metrics

LOOK_S: Final = 5.0


class Load:
    """Counts the waiting calls. The wait of the oldest one says more than their number."""

    def __init__(self, *, clock: Clock, metrics: Metrics) -> None:
        self._clock, self._metrics = clock, metrics
        self._since_s: dict[str, float] = {}
        self._at_provider = 0

    @contextmanager
    def at_provider(self) -> Iterator[None]:
        """A provider has the call: it neither waits for a place or a limit, nor for its next try."""
        self._at_provider += 1
        self._metrics.set("htdag_llm_in_flight", self._at_provider)
        try:
            yield
        finally:
            self._at_provider -= 1
            self._metrics.set("htdag_llm_in_flight", self._at_provider)

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._since_s)

    @property
    def wait_ms(self) -> int:
        """For how long the oldest has waited."""
        oldest = next(iter(self._since_s.values()), None)
        return 0 if oldest is None else int((self._clock.monotonic_s() - oldest) * 1000)

    def begin(self, corr_id: str) -> None:
        """A call begins to wait."""
        self._since_s[corr_id] = self._clock.monotonic_s()
        self._metrics.set("htdag_llm_queue_depth", len(self._since_s))

    def end(self, corr_id: str, provider: str, model: str) -> None:
        """It has a place, or has given up."""
        since_s = self._since_s.pop(corr_id, None)
        self._metrics.set("htdag_llm_queue_depth", len(self._since_s))
        if since_s is not None:
            waited_s = self._clock.monotonic_s() - since_s
            self._metrics.observe("htdag_llm_wait_seconds", waited_s, provider=provider, model=model)


async def watch_pending(bus: Bus, metrics: Metrics, consumer: ConsumerSpec) -> None:
    """Show for ever how many stored requests nobody has taken yet; the broker alone knows."""
    while True:
        try:
            info = await bus.api(f"CONSUMER.INFO.{consumer.stream}.{consumer.name}")
            metrics.set("htdag_llm_requests_pending", int(info["num_pending"]))
        except Rejected:
            pass  # the broker is away: what was shown last stands
        await asyncio.sleep(LOOK_S)
