"""At each named point a service is killed with SIGKILL; after its restart the run ends, once, and replays equal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from contracts import streams, subjects
from contracts.reply import RemoteRejected
from contracts.requests import GoalSubmit, RunRef, RunStart
from contracts.run import RunOptions, RunView
from contracts.run_proofs import ReplayReport, RunAudit
from contracts.task import AgentNode, LlmNode, LuaNode, NoopNode, TaskSpec
from services.runtime import faults
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.linked import linked
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

SERVICES = ("planner", "executor", "llm-worker")
# tests/faults/test_gateway_killed.py walks those of the gateway, and test_judging_crash_points.py that of judging.
POINTS = [
    point for point in faults.POINTS if not point.startswith("policy_gateway.") and point != "llm_worker.after_kept"
]
OWNERS = {"actor": "executor", "llm_worker": "llm-worker", "planner": "planner"}
TASKS = [
    TaskSpec(id="plain", node=NoopNode(result=1)),
    TaskSpec(id="asked", depends_on=["plain"], node=LlmNode(model="mock:delay=50ms", prompt="Say hello.")),
    TaskSpec(id="agent", depends_on=["plain"], description="Write it", node=AgentNode(model="mock:delay=20ms")),
    TaskSpec(id="lua", depends_on=["asked"], node=LuaNode(src="return {sum = 1 + 1}")),
    TaskSpec(id="last", depends_on=["agent", "lua"], node=LlmNode(model="mock", prompt="The end.")),
]


@pytest.fixture
async def fleet(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[dict[str, ServiceProcess]]:
    services = {name: ServiceProcess(name, nats_server, tmp_path / "home") for name in SERVICES}
    yield services
    for service in services.values():
        service.kill()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with linked(nats_server.url) as bus:
        yield bus


async def over(bus: Bus, run_id: str) -> RunView:
    async def view() -> RunView | None:
        try:
            found: RunView = await bus.call(subjects.rpc("executor", "run", "get"), RunRef(run_id), into=RunView)
        except RemoteRejected as error:
            if error.code == "run_not_found":
                return None  # its first message is not delivered again yet
            raise
        return found if found.status != "running" else None

    ended = await eventually(view, timeout_s=60)
    assert ended is not None
    return ended


async def proven(bus: Bus, run_id: str) -> None:
    """Completed, each task once, each call paid once, nothing waits, and the log folds to the same state."""
    view = await over(bus, run_id)
    assert view.status == "completed", view
    audit: RunAudit = await bus.call(subjects.rpc("executor", "run", "audit"), RunRef(run_id), into=RunAudit)
    assert (audit.duplicates, audit.tasks_completed_twice, audit.open_waits) == (0, 0, 0), audit
    assert audit.llm_calls_paid == audit.llm_calls_distinct
    report: ReplayReport = await bus.call(subjects.rpc("executor", "run", "replay"), RunRef(run_id), into=ReplayReport)
    assert (report.equal, report.llm_calls, report.order_ok) == (True, 0, True), report
    answers = await bus.subjects(streams.LLM_RESPONSES, subjects.llm_response(run_id, "*"))
    assert sum(answers.values()) == audit.llm_calls_paid


@pytest.mark.law("I4")
@pytest.mark.law("I12")
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("point", "nth"),
    [(point, nth) for point in POINTS for nth in ((1, 3) if point.startswith("actor.") else (2,))],
)
async def test_a_killed_service_finishes_what_it_began(
    point: str, nth: int, fleet: dict[str, ServiceProcess], bus: Bus
) -> None:
    victim = fleet[OWNERS[point.split(".", maxsplit=1)[0]]]
    for service in fleet.values():
        service.start(fault=f"{point}:{nth}" if service is victim else "")
    await asyncio.gather(*(service.ready() for service in fleet.values()))
    run_id = f"crash-{point.replace('.', '-')}-{nth}"
    start = asyncio.create_task(
        bus.call(
            subjects.rpc("executor", "run", "start"),
            RunStart(run_id=run_id, tasks=TASKS, options=RunOptions(stream=True)),
            timeout_s=2,
        )
    )
    await eventually(lambda: victim.dead, timeout_s=30)
    assert victim.exit_code == -9, victim.tail()
    await asyncio.wait([start])  # its answer may have died with the service: the run is in the log all the same
    start.exception()
    victim.start()
    await victim.ready()
    await proven(bus, run_id)


@pytest.mark.timeout(180)
async def test_a_planner_killed_after_its_commit_still_hands_the_goal_over(
    fleet: dict[str, ServiceProcess], bus: Bus
) -> None:
    for service in fleet.values():
        service.start()
    await asyncio.gather(*(service.ready() for service in fleet.values()))
    planner = fleet["planner"]
    planner.kill()
    planner.start(fault="actor.after_commit:1")
    await planner.ready()
    goal = GoalSubmit(goal="Tidy the shed", run_id="handed-over", options=RunOptions(model="mock"))
    submit = asyncio.create_task(bus.call(subjects.rpc("planner", "goal", "submit"), goal, timeout_s=2))
    await eventually(lambda: planner.dead, timeout_s=30)
    await asyncio.wait([submit])
    submit.exception()
    planner.start()
    await planner.ready()
    await eventually(_exists(bus, "handed-over"), timeout_s=30)
    await proven(bus, "handed-over")


def _exists(bus: Bus, run_id: str) -> Callable[[], object]:
    async def exists() -> bool:
        return await bus.last(streams.EVENTS_EXECUTOR, subjects.events("executor", "run", run_id)) is not None

    return exists
