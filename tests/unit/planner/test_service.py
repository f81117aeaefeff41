"""The planner as a process on a real broker, asked over NATS as anyone else asks it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.commit import Commit
from contracts.errors import Rejected
from contracts.reply import RemoteRejected
from contracts.run import (
    AddTasks,
    RunCreated,
    RunEvent,
    StartRun,
    TaskCompleted,
    TaskFailed,
    TasksAdded,
    TaskStarted,
)
from contracts.streams import COMMANDS, EVENTS_EXECUTOR, EVENTS_PLANNER
from contracts.subjects import events as event_subject
from contracts.subjects import rpc
from contracts.task import TaskSpec
from services.planner.epic_reading import EPIC_CODEC
from services.planner.task_board import RUN_CODEC
from services.runtime import nats_client
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

GOAL = "Build user authentication with JWT"
COUNTING = 'return {subtasks = {{id = "only", description = "v%d", estimated_complexity = 1}}, reasoning = "v%d"}'


class Desk:
    """A caller of the planner, who also reads what the planner wrote and writes what an executor would."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def ask(self, verb: str, **body: Any) -> Any:
        return await self.bus.call(rpc("planner", *verb.split(".")), body, timeout_s=15)

    async def refused(self, verb: str, **body: Any) -> dict[str, Any]:
        with pytest.raises(RemoteRejected) as error:
            await self.ask(verb, **body)
        return error.value.error

    async def commands(self) -> list[StartRun | AddTasks]:
        found = [record async for record in self.bus.history(COMMANDS, "htdag.v1.in.*.executor.run.*.*")]
        return [msgspec.json.decode(record.data, type=StartRun | AddTasks) for record in found]

    async def commits(self, kind: str, name: str) -> int:
        subject = event_subject("planner", kind, name)
        return len([record async for record in self.bus.history(EVENTS_PLANNER, subject)])

    async def run_events(self, run_id: str, /, *events: RunEvent, **summary: Any) -> None:
        data = RUN_CODEC.encode(Commit(at="", by="", cause="", corr="", events=list(events)))
        headers = {"Htdag-Summary": msgspec.json.encode(summary).decode()} if summary else {}
        subject = event_subject("executor", "run", run_id)
        number = len([record async for record in self.bus.history(EVENTS_EXECUTOR, subject)])
        await self.bus.store(subject, data, stream=EVENTS_EXECUTOR, msg_id=f"{run_id}-{number}", headers=headers)


@pytest.fixture
async def planner(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    service = ServiceProcess("planner", nats_server, tmp_path / "home")
    service.start()
    await service.ready()
    yield service
    service.kill()


@pytest.fixture
async def desk(nats_server: NatsServer, planner: ServiceProcess) -> AsyncIterator[Desk]:
    bus = Bus(await nats_client.connect(nats_server.url, name="test"))
    await bus.start()
    yield Desk(bus)
    await bus.close()


async def test_a_fresh_store_has_the_standard_strategy_and_seeding_again_changes_nothing(desk: Desk):
    [standard] = await desk.ask("strategy.list")
    assert (standard["name"], standard["version"]) == ("standard", 1)
    assert standard["scripts"] == ["decomposition", "agent_spawning", "orchestration", "completion"]
    assert [view["version"] for view in await desk.ask("strategy.seed")] == [1]
    assert await desk.commits("strategy", "standard") == 1


async def test_a_goal_becomes_four_sparc_phases_and_one_durable_start(desk: Desk):
    plan = await desk.ask("goal.submit", goal=GOAL, run_id="auth-build-1")
    assert [(task["id"], task["estimated_complexity"]) for task in plan["tasks"]] == [
        ("spec", 2.0), ("arch", 2.5), ("impl", 4.0), ("test", 1.5),
    ]  # fmt: skip
    assert [task.get("depends_on", []) for task in plan["tasks"]] == [[], ["spec"], ["arch"], ["impl"]]
    assert [task.get("role", "coder") for task in plan["tasks"]] == ["architect", "architect", "coder", "tester"]
    assert (plan["run_id"], plan["epic_id"], plan["depth"], plan["strategy"]) == (
        "auth-build-1", "default", 1, "standard@1",
    )  # fmt: skip
    assert plan["reasoning"] == "Complex task (10.0) decomposed into 4 SPARC phases"
    [start] = await desk.commands()
    assert isinstance(start, StartRun)
    assert (start.run_id, start.strategy, start.epic_id) == ("auth-build-1", "standard@1", "default")
    assert msgspec.to_builtins(start.tasks) == plan["tasks"]
    assert await desk.ask("task.graph", run_id="auth-build-1") == dict.fromkeys(
        ["spec", "arch", "impl", "test"], "pending"
    )


async def test_the_same_run_again_attaches_and_another_goal_is_refused(desk: Desk):
    first = await desk.ask("goal.submit", goal=GOAL, run_id="r1")
    again = await asyncio.gather(*(desk.ask("goal.submit", goal=GOAL, run_id="r1") for _ in range(3)))
    assert again == [first] * 3
    assert len(await desk.commands()) == 1
    assert await desk.commits("epic", "default") == 1
    assert (await desk.refused("goal.submit", goal="Else", run_id="r1"))["code"] == "duplicate_id"


async def test_two_at_the_same_moment_make_one_run(desk: Desk):
    plans = await asyncio.gather(*(desk.ask("goal.submit", goal=GOAL, run_id="r1") for _ in range(8)))
    assert all(plan == plans[0] for plan in plans)
    assert len(await desk.commands()) == 1


async def test_planning_only_stores_and_starts_nothing(desk: Desk):
    plan = await desk.ask("goal.plan", goal=GOAL)
    assert len(plan["tasks"]) == 4
    assert plan.get("run_id") is None
    assert (await desk.ask("goal.submit", goal=GOAL, run_id="x", plan_only=True)).get("run_id") is None
    assert await desk.commands() == []
    assert await desk.commits("epic", "default") == 0


async def test_refuses_wrong_goals_with_their_code(desk: Desk):
    cases: list[tuple[Any, str]] = [
        ({"goal": ""}, "empty_goal"),
        ({"goal": " \n"}, "empty_goal"),
        ({"goal": "x" * 100_000}, "too_large"),
        ({"goal": 7}, "bad_request"),
        ({}, "bad_request"),
        ({"goal": GOAL, "run_id": "a.b"}, "bad_id"),
        ({"goal": GOAL, "run_id": "epic-default"}, "bad_id"),
        ({"goal": GOAL, "epic_id": "nowhere"}, "epic_not_found"),
        ({"goal": GOAL, "strategy": "nobody"}, "strategy_not_found"),
        ({"goal": GOAL, "options": {"parallel": 0}}, "bad_request"),
    ]
    for body, code in cases:
        assert (await desk.refused("goal.submit", **body))["code"] == code
        assert await desk.commands() == []


async def test_a_goal_of_the_greatest_length_is_planned_within_the_bounds_of_a_task(desk: Desk):
    plan = await desk.ask("goal.submit", goal="x" * 20_000, run_id="long")
    assert max(len(task["description"]) for task in plan["tasks"]) == 20_000


async def test_one_task_answers_its_id_and_a_batch_its_ids(desk: Desk):
    task = {"id": "task-1", "title": "Run tests", "role": "tester", "context": {"module": "lib/auth.ex"}}
    assert await desk.ask("task.enqueue", task=task) == "task-1"
    assert await desk.ask("task.status", task_id="task-1") == "pending"
    assert await desk.ask("task.enqueue", task=task) == "task-1"
    assert await desk.commits("epic", "default") == 1
    assert (await desk.refused("task.enqueue", task={**task, "title": "Else"}))["code"] == "duplicate_id"
    batch = [{"id": "a", "depends_on": ["task-1"]}, {"id": "b", "depends_on": ["a"]}]
    assert await desk.ask("task.enqueue", tasks=batch) == ["a", "b"]
    assert await desk.ask("task.graph") == {"task-1": "pending", "a": "pending", "b": "pending"}
    first, second = await desk.commands()
    assert isinstance(first, AddTasks)
    assert (first.run_id, first.strategy) == ("epic-default", "standard@1")
    assert [task.id for task in second.tasks] == ["a", "b"]


async def test_refuses_wrong_tasks_with_their_code(desk: Desk):
    cases: list[tuple[Any, str]] = [
        ([{"id": "a", "depends_on": ["b"]}, {"id": "b", "depends_on": ["a"]}], "cycle"),
        ([{"id": "a", "depends_on": ["nothing"]}], "unknown_dependency"),
        ([{"id": "a"}, {"id": "a"}], "duplicate_id"),
        ([{"id": "a b"}], "bad_id"),
        ([{"id": "a", "role": "wizard"}], "unknown_role"),
        ([{"id": "a", "title": "x" * 20_001}], "too_large"),
        ([{"title": "no id"}], "bad_request"),
        ([{"id": "a", "depends_on": "b"}], "bad_request"),
        ([{"id": "a", "node": {"type": "wish"}}], "bad_request"),
        ([], "bad_request"),
    ]
    for tasks, code in cases:
        assert (await desk.refused("task.enqueue", tasks=[{"id": "fine"}, *tasks] if tasks else tasks))["code"] == code
        assert await desk.ask("task.graph") == {}


async def test_a_batch_of_twenty_thousand_reaches_the_executor_in_order(desk: Desk):
    tasks = [{"id": f"t{n}", "depends_on": [f"t{n - 1}"] if n else []} for n in range(20_000)]
    assert len(await desk.ask("task.enqueue", tasks=tasks[::-1])) == 20_000
    seen: set[str] = set()
    for command in await desk.commands():
        seen.update(task.id for task in command.tasks)
        assert all(needed in seen for task in command.tasks for needed in task.depends_on)
    assert len(seen) == 20_000
    assert await desk.ask("task.status", task_id="t19999") == "pending"


async def test_status_result_and_graph_follow_the_executor(desk: Desk):
    await desk.ask("task.enqueue", tasks=[{"id": "a"}, {"id": "b"}, {"id": "c"}])
    assert (await desk.refused("task.result", task_id="a"))["state"] == "pending"
    assert (await desk.refused("task.result", task_id="zzz"))["code"] == "task_not_found"
    assert (await desk.refused("task.status", task_id="zzz"))["code"] == "task_not_found"
    assert (await desk.refused("task.graph", run_id="zzz"))["code"] == "run_not_found"
    assert (await desk.refused("task.graph", epic_id="zzz"))["code"] == "epic_not_found"
    added = TasksAdded(tasks=[TaskSpec(id="a"), TaskSpec(id="b")])
    await desk.run_events(
        "epic-default", RunCreated(run_id="epic-default", deadline_at_ms=1), added, TaskStarted("a", 1, 1)
    )
    assert await desk.ask("task.graph") == {"a": "in_progress", "b": "pending", "c": "pending"}
    await desk.run_events("epic-default", TaskCompleted("a", 1, {"files": 3}), TaskFailed("b", 1, {"code": "timeout"}))
    assert await desk.ask("task.result", task_id="a") == {"files": 3}
    failed = await desk.refused("task.result", task_id="b")
    assert (failed["code"], failed["state"], failed["error"]) == ("not_completed", "failed", {"code": "timeout"})


async def test_epics_are_created_once_and_show_the_progress_of_their_runs(desk: Desk):
    made = await desk.ask("epic.create", title="Auth", epic_id="auth", budget_tokens=5)
    assert (made["epic_id"], made["created_by"], made["budget_tokens"]) == ("auth", "operator", 5)
    assert [epic["epic_id"] for epic in await desk.ask("epic.list")] == ["auth"]
    assert await desk.ask("epic.create", title="Auth", epic_id="auth", budget_tokens=5) == made
    assert (await desk.refused("epic.create", title="Else", epic_id="auth"))["code"] == "duplicate_id"
    await desk.ask("goal.submit", goal=GOAL, run_id="r1", epic_id="auth")
    assert await desk.ask("task.status", task_id="spec", run_id="r1") == "pending"
    added = TasksAdded(tasks=[TaskSpec(id="spec")])
    created = RunCreated(run_id="r1", deadline_at_ms=1, epic_id="auth")
    await desk.run_events("r1", created, added, run_id="r1", epic_id="auth", total=4, completed=3, failed=1)

    async def shown() -> bool:
        epic = await desk.ask("epic.get", epic_id="auth")
        return (epic["runs"], epic.get("total"), epic.get("completed"), epic.get("failed")) == (["r1"], 4, 3, 1)

    await eventually(shown)
    assert (await desk.refused("epic.get", epic_id="nowhere"))["code"] == "epic_not_found"


async def test_a_changed_strategy_counts_for_the_next_goal_at_once(desk: Desk, planner: ServiceProcess):
    pid = planner.pid
    for version in (1, 2):
        view = await desk.ask(
            "strategy.put",
            name="quick",
            pattern="hotfix",
            priority=10,
            scripts={"decompose": COUNTING % (version, version)},
        )
        assert view["version"] == version
        plan = await desk.ask("goal.plan", goal="A HOTFIX for login")
        assert (plan["strategy"], plan["reasoning"]) == (f"quick@{version}", f"v{version}")
    assert (await desk.ask("goal.plan", goal="A hotfix", strategy="quick@1"))["reasoning"] == "v1"
    assert (await desk.ask("strategy.rollback", name="quick"))["version"] == 1
    assert (await desk.ask("goal.plan", goal="A hotfix"))["reasoning"] == "v1"
    assert (await desk.ask("strategy.activate", name="quick", version=2))["version"] == 2
    await desk.ask("strategy.rollback", name="quick")
    assert (await desk.ask("strategy.rollback", name="quick"))["version"] == 0
    assert (await desk.ask("goal.plan", goal="A hotfix"))["strategy"] == "standard@1"
    assert (await desk.ask("strategy.rollback", name="standard"))["version"] == 0
    plan = await desk.ask("goal.plan", goal="A hotfix")
    assert (plan.get("strategy"), [task["id"] for task in plan["tasks"]]) == (None, ["goal"])
    assert planner.pid == pid
    assert not planner.dead


async def test_a_strategy_that_does_not_compile_is_refused_and_the_old_one_stays(desk: Desk):
    cases: list[tuple[Any, str]] = [
        ("local a = 1\nreturn {", "lua_syntax"),
        ("return os.execute('id')", "lua_restricted"),
        ("return " + "x" * (1 << 20), "too_large"),
    ]
    for source, code in cases:
        error = await desk.refused("strategy.put", name="standard", scripts={"decomposition": source})
        assert (error["code"], error["stage"]) == (code, "decomposition")
        if code == "lua_syntax":
            assert error["line"] == 2
        assert (await desk.ask("goal.plan", goal=GOAL))["strategy"] == "standard@1"


async def test_refuses_wrong_strategies_with_their_code(desk: Desk):
    cases: list[tuple[Any, str]] = [
        ({"scripts": {"dance": "return 1"}}, "bad_request"),
        ({"scripts": {"decomposition": "return 1"}, "pattern": "("}, "bad_request"),
        ({"scripts": {"decomposition": "return 1"}, "pattern": "x" * 501}, "bad_request"),
        ({"scripts": {}}, "bad_request"),
        ({"name": "a b", "scripts": {"decomposition": "return 1"}}, "bad_id"),
    ]
    for body, code in cases:
        assert (await desk.refused("strategy.put", **{"name": "new", **body}))["code"] == code


async def test_a_script_that_breaks_is_cut_with_a_code_and_the_planner_lives(desk: Desk):
    cases: list[tuple[Any, str]] = [
        ("while true do end", "lua_timeout"),
        ("error('no')", "lua_error"),
        ("local s = 'x' while true do s = s .. s end", "lua_memory"),
        ("return 7", "lua_bad_result"),
        ('return {subtasks={{id="a", description="x", dependencies={"spec"}}}}', "unknown_dependency"),
    ]
    for source, code in cases:
        await desk.ask("strategy.put", name="bad", pattern="break", priority=9, scripts={"decomposition": source})
        assert (await desk.refused("goal.submit", goal="break it"))["code"] == code
        assert (await desk.ask("goal.plan", goal=GOAL))["strategy"] == "standard@1"
        assert await desk.commands() == []


async def test_a_stage_is_tried_without_effect(desk: Desk):
    trial = await desk.ask(
        "strategy.try",
        name="standard",
        stage="spawn",
        task={"description": "Fix auth", "estimated_complexity": 8.5, "sparc_phase": "refinement"},
    )
    assert (trial["strategy"], trial["stage"]) == ("standard@1", "agent_spawning")
    assert len(trial["value"]["agents"]) == 3
    for complexity, count in ((10, 4), (6, 3), (4.9, 0)):
        task = {"description": "X", "estimated_complexity": complexity}
        trial = await desk.ask("strategy.try", name="standard", stage="decompose", task=task)
        assert len(trial["value"]["subtasks"]) == count
    for coverage, status in ((0.79, "needs_rework"), (0.80, "completed")):
        gate = {"code_quality": {"coverage": coverage, "complexity": 10}}
        assert (await desk.ask("strategy.try", name="standard", stage="complete", context=gate))["value"][
            "status"
        ] == status
    assert (await desk.ask("strategy.try", name="standard", stage="orchestrate"))["value"]["pattern"] == "solo"
    assert (await desk.refused("strategy.try", name="standard", stage="dance"))["code"] == "bad_request"
    assert (await desk.refused("strategy.try", name="nobody", stage="spawn"))["code"] == "strategy_not_found"


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

        await eventually(all_know, timeout_s=2)
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


async def test_every_commit_says_who_and_why(desk: Desk):
    await desk.bus.call(
        rpc("planner", "task", "enqueue"),
        {"task": {"id": "a"}},
        headers={"Htdag-By": "ann", "Htdag-Corr": "c1", "Nats-Msg-Id": "m1"},
    )
    record = await desk.bus.last(EVENTS_PLANNER, event_subject("planner", "epic", "default"))
    assert record is not None
    commit = EPIC_CODEC.decode(record.data)
    assert (commit.by, commit.corr, commit.cause) == ("ann", "c1", "m1")
    assert record.headers["Htdag-Types"] == "epic.created.v1,tasks.enqueued.v1"


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
