"""Planners and brokers that are killed, and planners that work side by side."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.run import (
    RunCreated,
    TasksAdded,
)
from contracts.streams import COMMANDS
from contracts.subjects import rpc
from contracts.task import TaskSpec
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess
from tests.unit.planner.desk import COUNTING, GOAL, Desk


async def test_several_planners_agree(desk: Desk, planner: ServiceProcess, nats_server: NatsServer, tmp_path: Path):
    other = ServiceProcess("planner", nats_server, tmp_path / "other")
    other.start()
    try:
        await other.ready()
        await desk.ask(
            "strategy.put", name="quick", pattern="hotfix", priority=10, scripts={"decompose": COUNTING % (1, 1)}
        )

        async def all_know() -> bool:
            plans = [await desk.ask("goal.plan", goal="A hotfix") for _ in range(10)]
            return all(plan["strategy"] == "quick@1" for plan in plans)

        await eventually(all_know)
        ids = [f"t{n}" for n in range(30)]
        await asyncio.gather(*(desk.ask("task.enqueue", task={"id": task_id}) for task_id in ids))
        for task_id in ids:  # whoever answers has read what the other accepted
            assert await desk.ask("task.status", task_id=task_id) == "pending"
        assert sorted(task.id for command in await desk.commands() for task in command.tasks) == sorted(ids)
    finally:
        other.kill()


async def test_what_a_killed_planner_did_not_hand_over_is_handed_over_at_its_next_start(
    desk: Desk, planner: ServiceProcess
):
    planner.kill()
    planner.start(fault="actor.after_commit:1")
    await planner.ready()
    with pytest.raises(Exception, match=r"."):
        await desk.bus.call(rpc("planner", "goal", "submit"), {"goal": GOAL, "run_id": "r1"}, timeout_s=3)
    await eventually(lambda: planner.dead)
    assert await desk.commits("epic", "default") == 1
    assert await desk.commands() == []
    planner.start()
    await planner.ready()
    [start] = await eventually(desk.commands)
    assert start.run_id == "r1"
    plan = await desk.ask("goal.submit", goal=GOAL, run_id="r1")
    assert msgspec.to_builtins(start.tasks) == plan["tasks"]
    assert len(await desk.commands()) == 1


async def test_a_start_leaves_alone_what_the_executor_has(desk: Desk, planner: ServiceProcess):
    await desk.ask("goal.submit", goal=GOAL, run_id="r1")
    await desk.ask("task.enqueue", task={"id": "a"})
    for run_id, task_id in (("r1", "spec"), ("epic-default", "a")):
        created, added = RunCreated(run_id=run_id, deadline_at_ms=1), TasksAdded(tasks=[TaskSpec(id=task_id)])
        await desk.run_events(run_id, created, added)
    await desk.bus.api(f"STREAM.PURGE.{COMMANDS}")
    planner.terminate()
    planner.start()
    await planner.ready()
    assert await desk.ask("task.status", task_id="a") == "pending"
    assert await desk.commands() == []


async def test_a_broker_that_was_killed_loses_nothing(desk: Desk, planner: ServiceProcess, nats_server: NatsServer):
    plan = await desk.ask("goal.submit", goal=GOAL, run_id="r1")
    await desk.ask("task.enqueue", task={"id": "a"})
    await desk.ask(
        "strategy.put", name="quick", pattern="hotfix", priority=10, scripts={"decompose": COUNTING % (1, 1)}
    )
    nats_server.kill()
    nats_server.start()

    async def answers() -> bool:
        try:
            return bool(await desk.bus.call(rpc("planner", "strategy", "list"), {}, timeout_s=1))
        except Rejected:
            return False

    await eventually(answers, timeout_s=20)
    assert await desk.ask("goal.submit", goal=GOAL, run_id="r1") == plan
    assert await desk.ask("task.status", task_id="a") == "pending"
    assert await desk.ask("task.enqueue", task={"id": "b", "depends_on": ["a"]}) == "b"
    assert (await desk.ask("goal.plan", goal="hotfix"))["strategy"] == "quick@1"
    assert len(await desk.commands()) == 3
    assert not planner.dead
