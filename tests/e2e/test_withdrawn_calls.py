"""What a task started ends with it: real programs in real sandboxes, ended by cancel, by both timeouts, by anybody."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts import streams, subjects
from contracts.policy import ToolDecided, ToolFinished
from contracts.requests import RunCancel, RunRef, RunStart
from contracts.run import RunOptions, RunView
from contracts.task import TaskSpec, ToolNode
from services.policy_gateway.audit.log import AUDIT_CODEC, AUDIT_SUBJECT
from services.runtime.bus import Bus
from tests.faults.test_crash_points import bus as bus  # noqa: PLC0414 - a fixture
from tests.faults.test_gateway_killed import processes
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

pytestmark = [pytest.mark.timeout(120)]
GONE_S = 3.0
"""About a second, on a machine that is busy with other tests."""


@pytest.fixture
async def services(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[dict[str, ServiceProcess]]:
    home = tmp_path / "home"
    executor = {"HTDAG_EXECUTOR__AUTO_ADMIN": "true"}
    made = {
        "executor": ServiceProcess("executor", nats_server, home, **executor),
        "other": ServiceProcess("executor", nats_server, tmp_path / "other", **executor),
        "gateway": ServiceProcess("policy-gateway", nats_server, home, HTDAG_POLICY__AUTO_ADMIN="true"),
    }
    for name in ("executor", "gateway"):
        made[name].start()
        await made[name].ready()
    yield made
    for service in made.values():
        if not service.dead:
            service.terminate()


async def sleeps(bus: Bus, run_id: str, seconds: str, task_ms: int | None = None, run_ms: int = 600_000) -> None:
    """A run whose only task sleeps in a box; it does."""
    task = TaskSpec(id="a", role="admin", timeout_ms=task_ms, node=ToolNode("shell", {"cmd": ["sleep", seconds]}))
    start = RunStart(run_id=run_id, tasks=[task], options=RunOptions(timeout_ms=run_ms))
    await bus.call(subjects.rpc("executor", "run", "start"), start)
    await eventually(lambda: processes("sleep", seconds), timeout_s=30)


async def gone(seconds: str, within_s: float = GONE_S) -> None:
    await eventually(lambda: not processes("sleep", seconds), timeout_s=within_s)


async def view(bus: Bus, run_id: str) -> RunView:
    return await bus.call(subjects.rpc("executor", "run", "get"), RunRef(run_id), into=RunView)


async def waits(bus: Bus, run_id: str) -> list[str]:
    return [wait["kind"] for wait in await bus.call(subjects.rpc("executor", "run", "waits"), {"run_id": run_id})]


async def ends(bus: Bus) -> list[str]:
    """How the calls of the audit ended; nothing while one has not."""
    history = bus.history(streams.EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT)
    entries = [entry async for record in history for entry in AUDIT_CODEC.decode(record.data).events]
    found = [entry.code for entry in entries if isinstance(entry, ToolFinished)]
    return found if len(found) == sum(isinstance(entry, ToolDecided) for entry in entries) else []


async def test_a_cancelled_run_ends_what_it_runs(services: dict[str, ServiceProcess], bus: Bus) -> None:
    await sleeps(bus, "cancelled", "60.8101")
    assert await waits(bus, "cancelled") == ["tool:shell"]
    await bus.call(subjects.rpc("executor", "run", "cancel"), RunCancel("cancelled"))
    await gone("60.8101")
    assert await eventually(lambda: ends(bus), timeout_s=10) == ["call_withdrawn"]
    assert await waits(bus, "cancelled") == []


async def test_so_does_a_task_that_is_cancelled_alone(services: dict[str, ServiceProcess], bus: Bus) -> None:
    await sleeps(bus, "alone", "60.8102")
    await bus.call(subjects.rpc("executor", "run", "cancel"), RunCancel("alone", task_id="a"))
    await gone("60.8102")


@pytest.mark.parametrize(
    ("run_id", "seconds", "limits"),
    [("task-timeout", "60.8103", {"task_ms": 3_000}), ("run-timeout", "60.8104", {"run_ms": 3_000})],
)
async def test_a_timeout_of_the_task_or_the_run_ends_what_it_runs(
    services: dict[str, ServiceProcess], bus: Bus, run_id: str, seconds: str, limits: dict[str, int]
) -> None:
    await sleeps(bus, run_id, seconds, **limits)
    await gone(seconds, 3.0 + GONE_S)
    await eventually(lambda: ends(bus), timeout_s=10)
    assert (await ends(bus))[0] in ("timeout", "call_withdrawn")

    async def over() -> bool:
        return (await view(bus, run_id)).status != "running"

    await eventually(over, timeout_s=10)


async def test_when_its_executor_is_dead_another_one_can_end_it(services: dict[str, ServiceProcess], bus: Bus) -> None:
    await sleeps(bus, "orphan", "60.8105")
    services["executor"].kill()
    assert processes("sleep", "60.8105")
    services["other"].start()
    await services["other"].ready()
    await bus.call(subjects.rpc("executor", "run", "cancel"), RunCancel("orphan"), timeout_s=30)
    await gone("60.8105")
    assert await eventually(lambda: ends(bus), timeout_s=10) == ["call_withdrawn"]
