"""Killed at each point while agents use tools, the executor asks again under the same names; no tool runs twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts import streams, subjects
from contracts.codec import CommitCodec
from contracts.requests import RunRef, RunStart
from contracts.run import RunEvent, RunOptions
from contracts.run_proofs import ReplayReport, RunAudit
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.task import AgentNode, TaskSpec, ToolNode
from services.runtime.bus import Bus
from tests.faults.test_crash_points import bus as bus  # noqa: PLC0414 - a fixture
from tests.faults.test_crash_points import over
from tests.support.eventually import eventually
from tests.support.fake_gateway import OK, FakeGateway
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

SCRIPT = [
    {
        "tool_calls": [
            {"tool": "fs", "args": {"write": "/code/a.py", "content": "x"}},
            {"tool": "git", "args": {"cmd": ["add", "."]}},
        ]
    },
    {"tool_calls": [{"tool": "shell", "args": {"cmd": ["rm", "-rf", "/"]}, "opts": {"timeout": 1000}}]},
    {"text": "written"},
]
TASKS = [
    TaskSpec(id="write", description="Write it", node=AgentNode(model="mock", params={"mock": {"script": SCRIPT}})),
    TaskSpec(id="test", role="tester", depends_on=["write"], node=ToolNode("shell", {"cmd": ["mix", "test"]})),
    TaskSpec(id="review", role="critic", depends_on=["test"], description="Review", node=AgentNode(model="mock")),
]
CODEC: CommitCodec[RunEvent] = CommitCodec(RunEvent)


def judge(role: str, tool: str, args: Any) -> Any:
    """Everything is allowed but `rm`."""
    if args.get("cmd", [""])[0] == "rm":
        return {"class": "policy_violation", "code": "forbidden_command", "message": "no"}
    return {**OK, "role": role, "tool": tool}


@pytest.fixture
async def gateway(nats_server: NatsServer) -> AsyncIterator[FakeGateway]:
    made = FakeGateway(nats_server.url, judge)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def services(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[dict[str, ServiceProcess]]:
    made = {name: ServiceProcess(name, nats_server, tmp_path / "home") for name in ("executor", "llm-worker")}
    yield made
    for service in made.values():
        service.kill()


async def begin(bus: Bus, run_id: str) -> None:
    """Start the run; whoever is killed meanwhile need not answer."""
    start = RunStart(run_id=run_id, tasks=TASKS, options=RunOptions(workspace="shop"))
    asked = asyncio.create_task(bus.call(subjects.rpc("executor", "run", "start"), start, timeout_s=2))
    await asyncio.wait([asked])
    asked.exception()


async def log_of(bus: Bus, run_id: str) -> list[RunEvent]:
    history = bus.history(streams.EVENTS_EXECUTOR, subjects.events("executor", "run", run_id))
    return [event async for record in history for event in CODEC.decode(record.data).events]


async def proven(bus: Bus, run_id: str, gateway: FakeGateway) -> None:
    """Completed; every call that was asked for was stored before, ran once, and is in the log once."""
    view = await over(bus, run_id)
    assert view.status == "completed", view
    events = await log_of(bus, run_id)
    requested = [(run_id, e.task_id, e.attempt, e.call) for e in events if isinstance(e, ToolRequested)]
    answered = [(run_id, e.task_id, e.attempt, e.call) for e in events if isinstance(e, ToolAnswered)]
    assert requested == [
        (run_id, "write", 1, 1),
        (run_id, "write", 1, 2),
        (run_id, "write", 1, 3),
        (run_id, "test", 1, 1),
    ]
    assert sorted(answered) == sorted(requested)
    assert sorted(gateway.effects) == sorted(requested)
    assert len({(name, subject, body) for name, subject, body in gateway.asked}) == len(requested)
    by_name = {name: subject for name, subject, _ in gateway.asked}
    assert by_name[run_id, "test", 1, 1] == "htdag.v1.tool.tester.shell"
    denied = [e for e in events if isinstance(e, ToolAnswered) and e.error is not None]
    assert [e.call for e in denied] == [3]
    audit: RunAudit = await bus.call(subjects.rpc("executor", "run", "audit"), RunRef(run_id), into=RunAudit)
    assert (audit.duplicates, audit.tool_calls, audit.tools_run_twice, audit.open_waits) == (0, 4, 0, 0), audit
    before = len(gateway.asked)
    report: ReplayReport = await bus.call(subjects.rpc("executor", "run", "replay"), RunRef(run_id), into=ReplayReport)
    assert (report.equal, report.llm_calls, len(gateway.asked)) == (True, 0, before), report


@pytest.mark.law("I8")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("point", "nth"),
    [
        *(("actor.before_commit", nth) for nth in (2, 3, 4)),
        *(("actor.after_commit", nth) for nth in (2, 3, 4, 5)),
        *(("actor.after_effects", nth) for nth in (2, 4)),
        ("actor.before_settle", 2),
    ],
)
async def test_an_executor_killed_among_tool_calls_repeats_none(
    point: str, nth: int, services: dict[str, ServiceProcess], bus: Bus, gateway: FakeGateway
) -> None:
    services["executor"].start(fault=f"{point}:{nth}")
    services["llm-worker"].start()
    await asyncio.gather(*(service.ready() for service in services.values()))
    run_id = f"tools-{point.replace('.', '-')}-{nth}"
    await begin(bus, run_id)
    await eventually(lambda: services["executor"].dead, timeout_s=30)
    assert services["executor"].exit_code == -9
    services["executor"].start()
    await services["executor"].ready()
    await proven(bus, run_id, gateway)


@pytest.mark.timeout(120)
async def test_a_gateway_killed_in_the_middle_of_a_call_is_asked_again(
    services: dict[str, ServiceProcess], bus: Bus, gateway: FakeGateway
) -> None:
    for service in services.values():
        service.start()
    await asyncio.gather(*(service.ready() for service in services.values()))
    gateway.silent = True  # it works, but dies before it can say so
    await begin(bus, "away")
    await eventually(lambda: gateway.effects, timeout_s=30)
    await gateway.stop()
    services["executor"].kill()  # and with it goes the patience of the calls under way: the new one finds nobody
    services["executor"].start()
    await services["executor"].ready()
    gateway.silent = False
    await gateway.start()
    await proven(bus, "away", gateway)


@pytest.mark.timeout(120)
async def test_without_a_gateway_tools_wait_and_say_for_what(
    services: dict[str, ServiceProcess], bus: Bus, gateway: FakeGateway
) -> None:
    await gateway.stop()
    for service in services.values():
        service.start()
    await asyncio.gather(*(service.ready() for service in services.values()))
    await begin(bus, "alone")

    async def waits() -> list[str]:
        found = await bus.call(subjects.rpc("executor", "run", "waits"), {"run_id": "alone"})
        kinds = sorted(wait["kind"] for wait in found)
        return kinds if any(kind.startswith("tool:") for kind in kinds) else []

    assert await eventually(waits, timeout_s=30) == ["tool:fs", "tool:git"]
    await gateway.start()
    await proven(bus, "alone", gateway)
