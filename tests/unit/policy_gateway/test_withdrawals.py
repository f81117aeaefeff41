"""A call ends with its task: by the log of the run, which every gateway follows, or at once when somebody says so."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Rejected
from contracts.policy import CallOf, ToolCall, ToolFinished
from contracts.reply import RemoteRejected
from contracts.run import RunCreated, TaskCancelled, TaskRetryScheduled, TasksAdded, TaskStarted
from contracts.subjects import rpc
from contracts.task import AgentNode, LuaNode, Node, TaskSpec, ToolNode
from services.policy_gateway.calls.call import Call
from services.policy_gateway.calls.flights import Flights
from services.policy_gateway.calls.withdrawals import Withdrawals
from services.policy_gateway.run_facts import RunFacts
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from services.runtime.logs import configure
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import CALL, FAR_MS, READ, Caller, Gateway, caller, gateway

WITHDRAW = rpc("policy-gateway", "call", "withdraw")
SLOW_LOOK = "services.policy_gateway.calls.withdrawals.LOOK_EVERY_S"


async def begun(one: Gateway, me: Caller) -> "asyncio.Task[dict]":
    """A call that does not end by itself."""
    one.tool.hold = asyncio.Event()
    calling = asyncio.create_task(me.call("coder", "fs", READ, task=CALL))
    await eventually(lambda: one.tool.calls)
    return calling


async def ends(me: Caller) -> list[str]:
    return [entry.code for entry in await me.audit() if isinstance(entry, ToolFinished)]


@pytest.mark.parametrize("end", [TaskCancelled("a"), TaskRetryScheduled("a", 1, 5, {})])
async def test_a_task_that_ends_takes_its_call_with_it(one: Gateway, me: Caller, end) -> None:
    await me.task_runs()
    calling = await begun(one, me)
    await me.run_is("r1", end)
    async with asyncio.timeout(3):
        error = (await calling)["error"]
    assert (error["class"], error["code"]) == ("cancelled", "call_withdrawn")
    assert one.tool.cut == 1
    await eventually(lambda: _is(ends(me), ["call_withdrawn"]))


async def _is(found, wanted) -> bool:
    return await found == wanted


async def test_a_call_of_a_task_that_goes_on_is_left_alone(one: Gateway, me: Caller) -> None:
    await me.task_runs()
    calling = await begun(one, me)
    with pytest.raises(RemoteRejected, match="conflict"):
        await me.bus.call(WITHDRAW, CALL)
    assert not calling.done()
    one.tool.hold.set()
    assert (await calling)["ok"]
    assert (await me.bus.call(WITHDRAW, CALL)) == {"under_way": False}
    assert (await me.bus.call(WITHDRAW, CallOf("r1", "a", 7, 1))) == {"under_way": False}


async def test_whichever_gateway_is_asked_ends_the_call_where_it_runs(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SLOW_LOOK, 3600.0)
    async with caller(nats_server) as me, gateway(nats_server, tmp_path / "one") as one:
        await me.task_runs()
        calling = await begun(one, me)
        async with gateway(nats_server, tmp_path / "two") as two:
            two.tool.hold = one.tool.hold
            await me.run_is("r1", TaskCancelled("a"))
            # The queue group gives it to either of the two.
            answers = await asyncio.gather(*(me.bus.call(WITHDRAW, CALL) for _ in range(6)))
        assert answers == [{"under_way": False}] * 6
        assert (await calling)["error"]["code"] == "call_withdrawn"
        assert one.tool.cut == 1


async def test_a_call_takes_no_longer_than_its_task_may(one: Gateway, me: Caller) -> None:
    soon_ms = time.time_ns() // 1_000_000 + 300
    started = TaskStarted("a", 1, soon_ms)
    await me.run_is("r1", RunCreated(run_id="r1", deadline_at_ms=FAR_MS), TasksAdded([TaskSpec(id="a")]), started)
    error = (await (await begun(one, me)))["error"]
    assert error["code"] == "timeout"
    assert error["timeout_ms"] <= 300
    await eventually(lambda: _is(ends(me), ["timeout"]))


async def test_a_call_takes_no_longer_than_its_run_may(one: Gateway, me: Caller) -> None:
    soon_ms = time.time_ns() // 1_000_000 - 1
    created = RunCreated(run_id="r1", deadline_at_ms=soon_ms)
    await me.run_is("r1", created, TasksAdded([TaskSpec(id="a")]), TaskStarted("a", 1, FAR_MS))
    assert (await me.call("coder", "fs", READ, task=CALL))["error"]["code"] == "timeout"


@pytest.mark.parametrize(
    ("node", "codes"),
    [
        (AgentNode(), ["", ""]),
        (AgentNode(tools=["lua"]), ["forbidden_tool", ""]),
        (AgentNode(tools=[]), ["forbidden_tool", "forbidden_tool"]),
        (ToolNode("fs", READ), ["", "call_not_requested"]),
        (LuaNode("return 1"), ["forbidden_tool", "forbidden_tool"]),
    ],
)
async def test_a_task_may_use_the_tools_that_its_node_names_whoever_asks(
    one: Gateway, me: Caller, node: Node, codes: list[str]
) -> None:
    spec = TaskSpec(id="a", node=node)
    created = RunCreated(run_id="r1", deadline_at_ms=FAR_MS)
    await me.run_is("r1", created, TasksAdded([spec]), TaskStarted("a", 1, FAR_MS))
    found = []
    for number, (tool, args) in enumerate((("fs", READ), ("lua", {"src": "return 1"})), 1):
        said = await me.call("coder", tool, args, task=CallOf("r1", "a", 1, number))
        found.append(said["error"]["code"] if "error" in said else "")
    assert found == codes
    assert len(one.tool.calls) == codes.count("")


class Unreadable:
    """A bus that cannot read the log of one run."""

    def __init__(self, bus: Bus, run_id: str) -> None:
        self._bus, self._run_id = bus, run_id

    async def history(self, stream: str, pattern: str, after: int = 0) -> AsyncIterator[Recorded]:
        if pattern.endswith(f".{self._run_id}"):
            raise Rejected("nats_unavailable", "this log cannot be read now")
        async for record in self._bus.history(stream, pattern, after):
            yield record


async def test_a_log_that_cannot_be_read_holds_up_no_other(me: Caller) -> None:
    await me.task_runs("r1")
    await me.run_is("r1", TaskCancelled("a"))
    flights = Flights()
    flying = [
        flights.begin(Call(run_id, "coder", "fs", ToolCall(READ, task=CallOf(run_id, "a", 1, 1)), "b", "c", 0.0))
        for run_id in ("r2", "r1")
    ]
    bus: Any = Unreadable(me.bus, "r2")
    withdrawals = Withdrawals(flights, RunFacts(bus, configure("test")), configure("test"))
    with pytest.raises(Rejected, match="cannot be read now"):
        await withdrawals.look()
    assert [flight.withdrawn.done() for flight in flying] == [False, True]
