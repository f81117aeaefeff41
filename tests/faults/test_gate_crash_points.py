"""Killed at each point around a gate, the executor asks for the same gate again and uses its release once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts import streams, subjects
from contracts.approval import RequestApproval, TakeApproval
from contracts.codec import CommitCodec
from contracts.limits import PARTITIONS
from contracts.requests import RunCancel, RunRef, RunStart
from contracts.run import RunEvent, TaskStarted
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.run_proofs import ReplayReport
from contracts.task import ApprovalNode, NoopNode, TaskSpec
from services.runtime.bus import Bus
from tests.faults.test_crash_points import bus as bus  # noqa: PLC0414 - a fixture
from tests.faults.test_crash_points import over
from tests.support.eventually import eventually
from tests.support.grants import PUBLIC, signed
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

TASKS = [
    TaskSpec(id="plain", node=NoopNode(result=1)),
    TaskSpec(id="deploy", role="admin", depends_on=["plain"], node=NoopNode(result="deployed")),
    TaskSpec(id="ok", depends_on=["deploy"], node=ApprovalNode(title="Really?")),
]
CODEC: CommitCodec[RunEvent] = CommitCodec(RunEvent)


@pytest.fixture
async def executor(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    made = ServiceProcess("executor", nats_server, tmp_path / "home", HTDAG_EXECUTOR__APPROVAL_KEYS=f'["{PUBLIC}"]')
    yield made
    made.kill()


async def release(bus: Bus, run_id: str, asked: set[str]) -> None:
    """What identity does: it answers each gate, twice."""
    for partition in range(PARTITIONS):
        wanted = f"{subjects.ROOT}.in.{partition}.identity.approval.*.request"
        async for record in bus.history(streams.COMMANDS, wanted):
            request = msgspec.json.decode(record.data, type=RequestApproval)
            gate = record.subject.split(".")[-2]
            if request.run_id != run_id or gate in asked:
                continue
            asked.add(gate)
            answer = TakeApproval(
                gate, run_id, request.task_id, request.attempt, "granted", request.digest, 1, "aka", "human", 7
            )
            for double in ("1", "2"):
                subject = subjects.command("executor", "run", run_id, "approval")
                data = msgspec.json.encode(signed(answer))
                await bus.store(subject, data, stream=streams.COMMANDS, msg_id=f"{gate}-{double}")


@pytest.mark.law("I6")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("point", "nth"),
    [
        *(("actor.before_commit", nth) for nth in (1, 2, 3)),
        *(("actor.after_commit", nth) for nth in (1, 2, 3)),
        *(("actor.after_effects", nth) for nth in (1, 2)),
        ("actor.before_settle", 2),
    ],
)
async def test_an_executor_killed_around_a_gate_asks_once_and_begins_once(
    point: str, nth: int, executor: ServiceProcess, bus: Bus
) -> None:
    executor.start(fault=f"{point}:{nth}")
    await executor.ready()
    run_id = f"gate-{point.replace('.', '-')}-{nth}"
    asked: set[str] = set()

    async def killed() -> bool:
        await release(bus, run_id, asked)
        return executor.dead

    async def all_asked() -> bool:
        await release(bus, run_id, asked)
        return len(asked) == len(TASKS) - 1

    start = RunStart(run_id=run_id, tasks=TASKS)
    begun = asyncio.create_task(bus.call(subjects.rpc("executor", "run", "start"), start, timeout_s=2))
    await asyncio.wait([begun])
    begun.exception()
    await eventually(killed, timeout_s=30)
    executor.start()
    await executor.ready()
    await eventually(all_asked, timeout_s=30)
    view = await over(bus, run_id)
    assert view.status == "completed", view
    history = bus.history(streams.EVENTS_EXECUTOR, subjects.events("executor", "run", run_id))
    events = [event async for record in history for event in CODEC.decode(record.data).events]
    for task_id in ("deploy", "ok"):
        about = [event for event in events if getattr(event, "task_id", "") == task_id]
        assert [type(event) for event in about[:3]] == [TaskApprovalRequested, TaskApproved, TaskStarted]
        assert sum(isinstance(event, TaskStarted) for event in about) == 1
    assert sorted(asked) == sorted(event.gate_id for event in events if isinstance(event, TaskApprovalRequested))
    report: ReplayReport = await bus.call(subjects.rpc("executor", "run", "replay"), RunRef(run_id), into=ReplayReport)
    assert report.equal


async def told(bus: Bus, verb: str) -> set[str]:
    """The gates that identity was told this of."""
    found: set[str] = set()
    for partition in range(PARTITIONS):
        wanted = f"{subjects.ROOT}.in.{partition}.identity.approval.*.{verb}"
        found |= {record.subject.split(".")[-2] async for record in bus.history(streams.COMMANDS, wanted)}
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["actor.after_commit", "actor.after_effects", "actor.before_settle"])
async def test_an_executor_killed_while_a_run_is_cancelled_leaves_no_gate_open(
    point: str, executor: ServiceProcess, bus: Bus
) -> None:
    run_id = f"withdrawn-{point.replace('.', '-')}"
    executor.start()
    await executor.ready()
    await bus.call(subjects.rpc("executor", "run", "start"), RunStart(run_id=run_id, tasks=TASKS[:2]), timeout_s=10)
    gates = await eventually(lambda: told(bus, "request"), timeout_s=30)
    executor.kill()
    executor.start(fault=f"{point}:1")
    await executor.ready()
    cancel = asyncio.create_task(bus.call(subjects.rpc("executor", "run", "cancel"), RunCancel(run_id), timeout_s=2))
    await asyncio.wait([cancel])
    cancel.exception()
    await eventually(lambda: executor.dead, timeout_s=30)
    executor.start()
    await executor.ready()
    assert (await over(bus, run_id)).status == "cancelled"

    async def withdrawn() -> bool:
        return await told(bus, "withdraw") == gates

    await eventually(withdrawn, timeout_s=20)
