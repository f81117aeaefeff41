"""Goals, tasks and epics over NATS, as anyone asks for them."""

import asyncio
from typing import Any

import msgspec

from contracts.run import (
    AddTasks,
    RunCreated,
    RunEnded,
    RunResumed,
    StartRun,
    TaskCompleted,
    TaskFailed,
    TasksAdded,
    TaskStarted,
)
from contracts.streams import EVENTS_PLANNER
from contracts.subjects import events as event_subject
from contracts.subjects import rpc
from contracts.task import TaskSpec
from services.planner.epic_reading import EPIC_CODEC
from tests.support.eventually import eventually
from tests.support.service_process import ServiceProcess
from tests.unit.planner.desk import GOAL, Desk


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


async def test_another_strategy_is_refused_while_the_open_run_is_under_way_and_taken_at_rest(desk: Desk):
    script = 'return {subtasks = {}, strategy = "atomic", reasoning = "x"}'
    await desk.ask("strategy.put", name="quick", pattern="never", scripts={"decompose": script})
    await desk.ask("task.enqueue", task={"id": "a"}, strategy="standard")
    # The executor has not said a word yet: what was accepted counts all the same.
    refused = await desk.refused("task.enqueue", task={"id": "b"}, strategy="quick")
    assert (refused["code"], refused["strategy"], refused["requested"]) == ("conflict", "standard@1", "quick@1")
    assert await desk.ask("task.enqueue", task={"id": "a"}, strategy="quick") == "a"
    created = RunCreated(run_id="epic-default", deadline_at_ms=1, strategy="standard@1", open=True)
    await desk.run_events("epic-default", created, TasksAdded(tasks=[TaskSpec(id="a")]))
    assert (await desk.refused("task.enqueue", task={"id": "b"}, strategy="quick"))["code"] == "conflict"
    assert await desk.ask("task.enqueue", task={"id": "b"}, strategy="standard") == "b"
    added = TasksAdded(tasks=[TaskSpec(id="b")])
    await desk.run_events("epic-default", added, RunEnded("completed", {"completed": 2}, "d"))
    assert await desk.ask("task.enqueue", task={"id": "c"}, strategy="quick") == "c"
    assert (await desk.commands())[-1].strategy == "quick@1"
    resumed = RunResumed(1, "tasks were added", "quick@1")
    await desk.run_events("epic-default", resumed, TasksAdded(tasks=[TaskSpec(id="c")]))
    assert (await desk.refused("task.enqueue", task={"id": "d"}, strategy="none"))["strategy"] == "quick@1"


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
        ([{"id": "a", "node": {"type": "wish"}}], "unknown_node_type"),
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
    assert (made["epic_id"], made["created_by"], made["budget_tokens"]) == ("auth", "anonymous", 5)
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
    # A run that was started beside the planner is one of its runs too.
    await desk.run_events("r2", created, added, run_id="r2", epic_id="auth", total=1)

    async def both() -> bool:
        return (await desk.ask("epic.get", epic_id="auth"))["runs"] == ["r1", "r2"]

    await eventually(both)
    await desk.ask("task.enqueue", tasks=[{"id": "t"}], epic_id="auth")
    assert (await desk.ask("epic.get", epic_id="auth"))["runs"] == ["r1", "r2", "epic-auth"]
    assert (await desk.refused("epic.get", epic_id="nowhere"))["code"] == "epic_not_found"


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


async def test_titles_and_goals_in_any_script_are_kept_as_they_are(desk: Desk, planner: ServiceProcess):
    title = "Größe ✓ 日本\n\u0007 🎯"
    await desk.ask("epic.create", title=title, epic_id="world")
    assert (await desk.ask("epic.list"))[0]["title"] == title
    plan = await desk.ask("goal.submit", goal=title, run_id="r1", epic_id="world")
    assert plan["goal"] == title
    assert plan["tasks"][0]["description"] == f"Design and specify: {title}"
    [start] = await desk.commands()
    assert start.tasks[0].description == plan["tasks"][0]["description"]
    planner.terminate()
    planner.start()
    await planner.ready()
    assert [epic["title"] for epic in await desk.ask("epic.list")] == [title]
