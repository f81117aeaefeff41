"""What the gateway knows of a run, also from a replica of the log that is a moment behind."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.errors import Rejected
from contracts.policy import CallOf, ToolCall
from contracts.run import TaskStarted
from contracts.run_tools import ToolRequested
from services.policy_gateway.run_facts import Bound, RunFacts
from services.runtime import provision
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from services.runtime.logs import configure
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import READ, Caller, caller


class Behind:
    """A bus whose reads are answered by a replica that gets the newest commit some reads later."""

    def __init__(self, bus: Bus, reads: int) -> None:
        self._bus, self._left = bus, reads
        self.reads = 0

    async def history(self, stream: str, pattern: str, after: int = 0) -> AsyncIterator[Recorded]:
        self.reads += 1
        found = [record async for record in self._bus.history(stream, pattern, after)]
        if self._left:
            self._left -= 1
            found = found[:-1]
        for record in found:
            yield record

    async def newest(self, stream: str, subject: str) -> int:
        return await self._bus.newest(stream, subject)


@pytest.fixture
async def me(nats_server: NatsServer) -> AsyncIterator[Caller]:
    async with caller(nats_server) as made:
        await provision.apply(made.bus)
        yield made


def facts(bus: Any) -> RunFacts:
    return RunFacts(bus, configure("test"))


async def bound(bus: Any, call: CallOf) -> Bound:
    return await facts(bus).bound(call, "fs", ToolCall(READ))


@pytest.mark.parametrize("reads", [0, 1, 3])
async def test_a_replica_that_is_behind_refuses_no_call(me: Caller, reads: int) -> None:
    await me.task_runs()
    await me.run_is("r1", TaskStarted("a", 2, 1), ToolRequested("a", 2, "llm-1", 1, "fs", READ, 1))
    bus = Behind(me.bus, reads)
    assert (await bound(bus, CallOf("r1", "a", 2, 1))).role == "coder"
    assert bus.reads == reads + 1


async def test_what_is_not_there_is_refused_after_one_look(me: Caller) -> None:
    await me.task_runs()
    bus = Behind(me.bus, 0)
    with pytest.raises(Rejected, match="run_not_found"):
        await bound(bus, CallOf("r2", "a", 1, 1))
    assert bus.reads == 1


async def test_a_task_that_is_elsewhere_is_known_all_the_same(me: Caller) -> None:
    """Whose task it is counts before how far it is: another role is no matter of time."""
    await me.task_runs(role="critic")
    bus = Behind(me.bus, 0)
    found = await bound(bus, CallOf("r1", "a", 2, 1))
    assert found.stale is not None
    assert (found.role, found.stale.code, bus.reads) == ("critic", "stale_attempt", 1)
