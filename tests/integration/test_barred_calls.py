"""An agent that asks for tools its task does not have: refused, and seen by audit, statistics, alarm."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from contracts.policy import CallOf, SecurityRaised, ToolCall, ToolDecided
from contracts.run import RunCreated, TasksAdded, TaskStarted
from contracts.task import AgentNode, TaskSpec
from services.executor.run.effects import CallTool
from services.executor.tool_caller import ToolCaller
from services.executor.tool_desk import ToolDesk
from services.policy_gateway.audit.denials import BURST_COUNT
from services.runtime.clock import SystemClock
from services.runtime.logs import configure
from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import FAR_MS, READ, Caller, caller, gateway


def desk_of(me: Caller, at_once: int = 4) -> ToolDesk:
    clock = SystemClock()
    caller = ToolCaller(me.bus, clock, result_bytes_max=1 << 16, nobody_s=0.05)
    return ToolDesk(caller, clock, configure("test"), lambda *_: None, at_once)


def barred(call: int, tool: str = "fs", within_s: float = 20.0, *, is_barred: bool = True) -> CallTool:
    deadline_ms = time.time_ns() // 1_000_000 + round(within_s * 1000)
    return CallTool("a", 1, call, "coder", tool, READ, {}, deadline_ms, for_model=True, barred=is_barred)


async def asked(me: Caller, *effects: CallTool) -> None:
    """The run's log asks for these calls, as it does before the executor sends them."""
    for effect in effects:
        task = CallOf("r1", effect.task_id, effect.attempt, effect.call)
        await me.asks_for(effect.tool, ToolCall(effect.args, effect.opts, task, barred=effect.barred), task)


@pytest.mark.parametrize(
    ("node", "allowed"),
    [(AgentNode(tools=["lua"]), ["lua"]), (AgentNode(tools=["fs", "lua"]), ["lua"]), (AgentNode(), [])],
)
async def test_who_hammers_at_tools_that_a_task_lacks_is_seen(
    nats_server: NatsServer, tmp_path: Path, node: AgentNode, allowed: list[str]
) -> None:
    """Also where the gateway by itself would allow it: a list that only the executor knows is a list."""
    async with caller(nats_server) as me, gateway(nats_server, tmp_path) as one:
        created = RunCreated(run_id="r1", deadline_at_ms=FAR_MS)
        await me.run_is("r1", created, TasksAdded([TaskSpec(id="a", node=node)]), TaskStarted("a", 1, FAR_MS))
        desk, calls = desk_of(me), [barred(number) for number in range(1, BURST_COUNT + 1)]
        await asked(me, *calls)
        results = await asyncio.gather(*(desk.call("r1", call) for call in calls))
        errors = [result.error or {} for result in results]
        assert {(error["code"], error["rule"]) for error in errors} == {("forbidden_tool", "task.tools")}
        assert all(error["tools"] == allowed for error in errors)
        assert one.tool.calls == []
        entries = await me.audit()
        decided = [entry for entry in entries if isinstance(entry, ToolDecided)]
        assert [(entry.verdict, entry.rule, entry.run_id) for entry in decided] == [
            ("deny", "task.tools", "r1")
        ] * BURST_COUNT
        assert [entry.kind for entry in entries if isinstance(entry, SecurityRaised)] == ["denial_burst"]
        assert (await me.ask("stats"))["policy_violations_blocked"] == BURST_COUNT


async def test_the_same_refusal_asked_again_is_one_entry(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path):
        await me.task_runs()
        await asked(me, barred(1))
        first, second = [await desk_of(me).call("r1", barred(1)) for _ in range(2)]
        assert first.error == second.error
        assert len(await me.audit()) == 1


async def test_nobody_can_have_a_barred_call_of_no_task(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path) as one:
        said = await me.raw("coder", "fs", msgspec.json.encode(ToolCall(READ, barred=True)))
        assert (said["error"]["code"], said["error"]["rule"]) == ("forbidden_tool", "task.tools")
        assert one.tool.calls == []


async def test_without_a_gateway_a_refusal_ends_by_its_own_deadline(nats_server: NatsServer) -> None:
    async with caller(nats_server) as me:
        async with asyncio.timeout(5):
            result = await desk_of(me).call("r1", barred(1, within_s=0.3))
        assert result.error is not None
        assert result.error["code"] == "service_unavailable"


async def test_refusals_do_not_wait_for_the_tools_of_others(nats_server: NatsServer, tmp_path: Path) -> None:
    async with caller(nats_server) as me, gateway(nats_server, tmp_path) as one:
        await me.task_runs()
        await asked(me, barred(1, is_barred=False), barred(2))
        one.tool.hold = asyncio.Event()
        desk = desk_of(me, at_once=1)
        long = asyncio.create_task(desk.call("r1", barred(1, is_barred=False)))
        async with asyncio.timeout(10):
            refused = await desk.call("r1", barred(2))
        assert (refused.error or {})["rule"] == "task.tools"
        assert not long.done()
        one.tool.hold.set()
        assert (await long).error is None
