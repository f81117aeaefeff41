"""Counting what a task has fetched."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from contracts.policy import CallOf
from services.policy_gateway.calls.fetch_counts import FetchCounts
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import caller, gateway

PAGE = {"url": "https://docs.rs/x"}
LONG_AGO, LATER = "2000-01-01T00:00:00.000Z", "2200-01-01T00:00:00.000Z"


class Counting:
    """A bus that knows how many messages were read through it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.read = 0
        self.last, self.first_since = bus.last, bus.first_since

    async def history(self, stream: str, pattern: str, after: int = 0) -> AsyncIterator[Recorded]:
        async for record in self._bus.history(stream, pattern, after):
            self.read += 1
            yield record


async def test_calls_that_ask_at_once_are_told_the_same(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one"):
        await me.task_runs(role="researcher")
        for number in range(1, 6):
            assert (await me.call("researcher", "http", PAGE, task=CallOf("r1", "a", 1, number)))["ok"]
        counts = FetchCounts(me.bus)
        many = [counts.count(CallOf("r1", "a", 1, number), LONG_AGO) for number in range(6, 14)]
        assert await asyncio.gather(*many) == [5] * 8


async def test_for_a_run_that_has_no_entry_yet_the_audit_is_not_read(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one"):
        for _ in range(5):
            await me.call("researcher", "http", PAGE)
        bus = Counting(me.bus)
        assert await FetchCounts(bus).count(CallOf("r1", "a", 1, 1), LATER) == 0  # type: ignore[arg-type]
        assert bus.read == 0
