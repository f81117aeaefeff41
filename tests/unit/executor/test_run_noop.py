"""A run of plain tasks: start, order, room, ends, cancel, resume, deadlines, retries."""

import msgspec
import pytest

from contracts.errors import failure
from contracts.limits import RETRY_DELAY_FIRST_MS, RUN_TIMEOUT_DEFAULT_MS, TASK_TIMEOUT_DEFAULT_MS
from contracts.run import (
    AddTasks,
    CancelRun,
    ResumeRun,
    RunCancelRequested,
    RunCreated,
    RunEnded,
    RunResumed,
    StartRun,
    TakeTime,
    TaskBlocked,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskReset,
    TaskRetryScheduled,
    TasksAdded,
    TaskStarted,
)
from contracts.task import NatsNode, TaskSpec
from services.executor.run.decider import RUN
from services.executor.run.state import digest
from tests.support.spec import NOW_MS, Spec
from tests.unit.executor.builders import broke, done, group, noop, run, start

TASK_DEADLINE = NOW_MS + TASK_TIMEOUT_DEFAULT_MS
RUN_DEADLINE = NOW_MS + RUN_TIMEOUT_DEFAULT_MS


def began(task_id: str, attempt: int = 1, deadline_at_ms: int = TASK_DEADLINE) -> TaskStarted:
    return TaskStarted(task_id, attempt, deadline_at_ms)


def statuses(spec: Spec) -> dict[str, str]:
    return {task_id: task.status for task_id, task in spec.state.tasks.items()}


def started(spec: Spec) -> list[str]:
    return [event.task_id for event in spec.history if isinstance(event, TaskStarted)]


def test_a_run_begins_with_its_tasks_and_starts_what_is_ready():
    told = run().when(start(noop("a"), noop("b", "a")))
    created, added = told.events
    assert isinstance(created, RunCreated)
    assert isinstance(added, TasksAdded)
    assert (created.run_id, created.goal, created.deadline_at_ms) == ("r1", "a goal", RUN_DEADLINE)
    told.then_follows(began("a"))


def test_the_same_start_again_changes_nothing_and_another_plan_is_refused():
    spec = run().after(start(noop("a")))
    spec.when(start(noop("a"))).then_nothing()
    spec.when(start(noop("b"))).then_rejected("duplicate_id", id="r1")
    spec.after(done("a")).when(start(noop("a"))).then_nothing()


def test_a_default_that_is_spelt_out_is_the_same_plan():
    text = b'{"id":"a","role":"coder","node":{"type":"noop","result":"did a"}}'
    said = msgspec.json.decode(text, type=TaskSpec)
    run().after(start(noop("a"))).when(start(said)).then_nothing()


def test_a_task_starts_when_all_its_dependencies_completed():
    spec = run().after(start(noop("a"), noop("b"), noop("c", "a", "b")))
    spec.when(done("a")).then_follows()
    spec.when(done("b")).then_follows(began("c"))


def test_a_run_ends_with_counts_and_the_digest_of_its_state():
    spec = run().after(start(noop("a")))
    told = spec.when(done("a", value={"n": 1}))
    told.then(TaskCompleted("a", 1, {"n": 1}))
    told.then_follows(RunEnded("completed", {"total": 1, "completed": 1}, digest(spec.state)))


def test_ready_tasks_are_chosen_by_priority_then_depth_then_complexity_then_arrival():
    spec = run().after(
        start(
            noop("late", depth=0, estimated_complexity=3.0),
            noop("d1c2", depth=1, estimated_complexity=2.0),
            noop("d0c9", depth=0, estimated_complexity=9.0),
            noop("d0c3", depth=0, estimated_complexity=3.0),
            noop("urgent", depth=5, estimated_complexity=99.0, priority=1),
            parallel=1,
        )
    )
    for _ in range(4):
        spec.after(done(started(spec)[-1]))
    assert started(spec) == ["urgent", "late", "d0c3", "d0c9", "d1c2"]


def test_no_more_tasks_run_at_once_than_there_is_room_for_and_groups_take_none():
    spec = run().after(start(group("g"), *(noop(f"t{n}", parent="g") for n in range(5)), parallel=2))
    assert started(spec) == ["g", "t0", "t1"]
    spec.when(done("t1")).then_follows(began("t2"))


def test_results_of_older_attempts_unknown_tasks_and_doubles_change_nothing():
    spec = run().after(start(noop("a"), noop("b", "a")))
    spec.when(done("nobody")).then_nothing()
    spec.when(done("a", attempt=2)).then_nothing()
    spec.when(done("a", step="spawn")).then_nothing()
    spec.when(done("b")).then_nothing()
    spec.after(done("a")).when(done("a")).then_nothing()


def test_a_failed_task_blocks_what_depends_on_it_and_the_rest_goes_on():
    spec = run().after(start(noop("a"), noop("b", "a"), noop("c", "b"), noop("free")))
    told = spec.when(broke("a", "lua_error"))
    assert [type(event) for event in told.events] == [TaskFailed]
    told.then_follows(TaskBlocked("b", "a"), TaskBlocked("c", "a"))
    assert spec.state.status == "running"
    spec.after(done("free"))
    assert (spec.state.status, spec.state.error["code"], spec.state.error["task_id"]) == ("failed", "lua_error", "a")
    assert statuses(spec) == {"a": "failed", "b": "blocked", "c": "blocked", "free": "completed"}


def test_fail_fast_cancels_everything_else():
    spec = run().after(start(noop("a"), noop("b", "a"), noop("free"), fail_fast=True), broke("a", "lua_error"))
    assert statuses(spec) == {"a": "failed", "b": "cancelled", "free": "cancelled"}
    assert spec.state.status == "failed"


def test_a_group_completes_after_its_last_child():
    spec = run().after(start(group("g"), noop("x", parent="g"), noop("y", "x", parent="g"), noop("after", "g")))
    spec.when(done("x")).then_follows(began("y"))
    told = spec.when(done("y"))
    told.then_follows(TaskCompleted("g", 1, {"decomposed": True, "subtask_count": 2}), began("after"))


def test_a_group_without_children_completes_at_once():
    spec = run().after(start(group("g")))
    assert spec.state.status == "completed"


def test_a_group_fails_when_a_child_failed_and_all_have_ended():
    spec = run().after(start(group("g"), noop("x", parent="g"), noop("y", parent="g"), noop("after", "g")))
    spec.when(broke("x", "lua_error")).then_follows()
    spec.after(done("y"))
    assert statuses(spec) == {"g": "failed", "x": "failed", "y": "completed", "after": "blocked"}
    assert spec.state.tasks["g"].error["code"] == "child_failed"
    assert spec.state.tasks["after"].blocked_by == "g"


def test_nested_groups_begin_and_end_from_inside_out():
    spec = run().after(start(group("g"), group("h", parent="g"), noop("x", parent="h")), done("x"))
    ended = [event.task_id for event in spec.history if isinstance(event, TaskCompleted)]
    assert (started(spec), ended) == (["g", "h", "x"], ["x", "h", "g"])


def test_children_of_a_group_that_is_blocked_are_blocked():
    spec = run().after(start(noop("a"), group("g", "a"), noop("x", parent="g")), broke("a", "lua_error"))
    assert statuses(spec) == {"a": "failed", "g": "blocked", "x": "blocked"}
    assert spec.state.tasks["x"].blocked_by == "a"


def test_cancelling_a_group_cancels_what_runs_in_it():
    spec = run().after(start(group("g"), noop("x", parent="g"), noop("y", "x", parent="g")))
    spec.after(CancelRun("enough", "g"))
    assert statuses(spec) == {"g": "cancelled", "x": "cancelled", "y": "blocked"}


def test_cancelling_a_run_ends_it_and_again_changes_nothing():
    spec = run().after(start(noop("a"), noop("b", "a")))
    told = spec.when(CancelRun("enough"))
    told.then(RunCancelRequested("enough"), TaskCancelled("a", "enough"), TaskCancelled("b", "enough"))
    assert (spec.state.status, spec.state.error["code"]) == ("cancelled", "cancelled")
    spec.when(CancelRun("enough")).then_nothing()
    spec.when(done("a")).then_nothing()


def test_cancelling_one_task_blocks_its_dependents_only():
    spec = run().after(start(noop("a"), noop("b", "a"), noop("free")))
    spec.when(CancelRun("no", "a")).then(TaskCancelled("a", "no"))
    assert statuses(spec) == {"a": "cancelled", "b": "blocked", "free": "in_progress"}
    spec.when(CancelRun("no", "a")).then_nothing()
    spec.when(CancelRun("no", "b")).then_rejected("already_finished")
    spec.when(CancelRun("no", "nobody")).then_rejected("task_not_found")


def test_wishes_for_a_run_that_is_not_there_are_refused():
    run().when(CancelRun()).then_rejected("run_not_found")
    run().when(ResumeRun()).then_rejected("run_not_found")
    run().when(TakeTime()).then_nothing()
    run().when(done("a")).then_nothing()


def test_after_its_end_a_run_refuses_wishes_and_ignores_messages():
    spec = run().after(start(noop("a")), done("a"))
    spec.when(CancelRun()).then_rejected("already_finished")
    spec.when(ResumeRun()).then_rejected("already_finished")
    spec.when(AddTasks("r1", [noop("b")])).then_rejected("already_finished")
    spec.when(done("a")).then_nothing()
    spec.later(RUN_TIMEOUT_DEFAULT_MS * 2).when(TakeTime()).then_nothing()
    assert RUN.deadline_at_ms(spec.state) is None


def test_resume_tries_again_what_ended_badly_and_keeps_what_completed():
    tasks = (noop("a"), group("g", "a"), noop("x", parent="g"), noop("y", parent="g"), noop("z", "g"))
    spec = run().after(start(*tasks), done("a"), broke("x", "lua_error"), done("y"))
    assert spec.state.status == "failed"
    told = spec.later(1000).when(ResumeRun("once more"))
    told.then(RunResumed(RUN_DEADLINE + 1000, "once more"), TaskReset("g"), TaskReset("x"), TaskReset("z"))
    told.then_follows(began("g", 2, RUN_DEADLINE + 1000), began("x", 2, TASK_DEADLINE + 1000))
    spec.when(ResumeRun()).then_nothing()
    spec.after(done("x", 2), done("z"))
    assert spec.state.status == "completed"
    assert [event.status for event in spec.history if isinstance(event, RunEnded)] == ["failed", "completed"]


def test_resume_after_cancel_starts_the_rest():
    spec = run().after(start(noop("a"), noop("b", "a")), CancelRun(), ResumeRun())
    assert statuses(spec) == {"a": "in_progress", "b": "pending"}
    spec.after(done("a", 2), done("b"))
    assert spec.state.status == "completed"


def nats(task_id: str, **fields: object) -> TaskSpec:
    return TaskSpec(id=task_id, node=NatsNode(subject="x.y"), **fields)  # type: ignore[arg-type]


def test_a_failure_that_may_pass_is_tried_again_later():
    spec = run().after(start(nats("a")))
    told = spec.when(broke("a", "no_responders"))
    (retry,) = told.events
    assert isinstance(retry, TaskRetryScheduled)
    assert RETRY_DELAY_FIRST_MS // 2 <= retry.due_at_ms - NOW_MS <= RETRY_DELAY_FIRST_MS
    told.then_follows()
    assert RUN.deadline_at_ms(spec.state) == retry.due_at_ms
    spec.at(retry.due_at_ms - 1).when(TakeTime()).then_follows()
    spec.at(retry.due_at_ms).when(TakeTime()).then_follows(began("a", 2, retry.due_at_ms + TASK_TIMEOUT_DEFAULT_MS))


def test_attempts_are_bounded_and_the_last_error_stays():
    spec = run().after(start(nats("a", max_attempts=2)), broke("a", "no_responders"))
    spec.later(60_000).after(TakeTime()).after(broke("a", "no_responders", 2))
    error = spec.state.tasks["a"].error
    assert (spec.state.status, error["code"], error["attempts"]) == ("failed", "no_responders", 2)


def test_resume_gives_a_task_all_its_attempts_again():
    spec = run().after(start(nats("a", max_attempts=1)), broke("a", "no_responders"), ResumeRun())
    assert spec.state.tasks["a"].attempt == 2
    spec.after(broke("a", "no_responders", 2))
    assert spec.state.status == "failed"


def test_the_delay_of_a_retry_is_bounded_and_derives_from_ids_alone():
    from services.executor.run.failures import delay_ms

    delays = [delay_ms("r", "t", attempt, attempt) for attempt in range(1, 40)]
    assert delays == [delay_ms("r", "t", attempt, attempt) for attempt in range(1, 40)]
    assert max(delays) <= 30_000
    assert delay_ms("r", "t", 1, 1) != delay_ms("r", "u", 1, 1)


def test_a_task_past_its_deadline_fails_with_timeout_and_is_not_tried_again():
    spec = run().after(start(nats("a", timeout_ms=100), noop("b", "a")))
    assert RUN.deadline_at_ms(spec.state) == NOW_MS + 100
    spec.later(99).when(TakeTime()).then_nothing()
    told = spec.later(1).when(TakeTime())
    told.then(TaskFailed("a", 1, failure("timeout", deadline_at_ms=NOW_MS + 100)))
    spec.when(TakeTime()).then_nothing()
    assert spec.state.status == "failed"


def test_a_group_with_a_timeout_ends_its_children():
    spec = run().after(start(group("g", timeout_ms=50), noop("x", parent="g"), noop("y", "x", parent="g")))
    spec.later(50).after(TakeTime())
    assert statuses(spec) == {"g": "failed", "x": "cancelled", "y": "blocked"}


def test_a_run_past_its_deadline_fails_with_timeout():
    spec = run().after(start(noop("a"), noop("b", "a"), timeout_ms=1000))
    assert spec.state.tasks["a"].deadline_at_ms == NOW_MS + 1000
    spec.later(1000).after(TakeTime())
    assert statuses(spec) == {"a": "cancelled", "b": "cancelled"}
    assert (spec.state.status, spec.state.error["code"]) == ("failed", "timeout")


def test_a_resume_that_comes_again_days_later_does_nothing():
    spec = run().after(start(nats("a")), broke("a", "bad_id"))
    said = ResumeRun(aimed_at=2)
    spec.after(said)
    assert spec.state.status == "running"
    spec.when(said).then_nothing()
    for end in (broke("a", "bad_id", 2), CancelRun("enough")):
        ended = run().after(start(nats("a")), broke("a", "bad_id"), said, end)
        ended.when(said).then_rejected("conflict", ended=2)
        ended.after(ResumeRun(aimed_at=3))
        assert ended.state.status == "running"


def test_a_cancel_that_comes_again_after_a_resume_does_nothing():
    said, said_of_task = CancelRun("no", aimed_at=1), CancelRun("no", "a", aimed_at=1)
    spec = run().after(start(nats("a")), said)
    spec.when(said).then_nothing()
    spec.after(ResumeRun(aimed_at=2))
    spec.when(said).then_rejected("conflict", ended=1)
    spec.when(said_of_task).then_rejected("conflict", ended=1)
    spec.after(CancelRun("yes", aimed_at=2))
    assert spec.state.status == "cancelled"


def test_the_next_deadline_moves_on_as_tasks_end():
    spec = run().after(start(nats("a", timeout_ms=100), nats("b", timeout_ms=200)))
    assert RUN.deadline_at_ms(spec.state) == NOW_MS + 100
    spec.after(done("a"))
    assert RUN.deadline_at_ms(spec.state) == NOW_MS + 200


def open_run(*tasks: TaskSpec) -> AddTasks:
    return AddTasks("r1", list(tasks), epic_id="default")


def test_adding_tasks_creates_an_open_run():
    spec = run().after(open_run(noop("a")))
    assert (spec.state.open, spec.state.epic_id, statuses(spec)) == (True, "default", {"a": "in_progress"})


def test_the_same_task_again_changes_nothing_and_another_under_its_id_is_refused():
    spec = run().after(open_run(noop("a")))
    spec.when(open_run(noop("a"))).then_nothing()
    spec.when(open_run(noop("b"), noop("a", priority=1))).then_rejected("duplicate_id", id="a")
    assert statuses(spec) == {"a": "in_progress"}


def test_adding_to_an_open_run_that_ended_begins_it_again():
    spec = run().after(open_run(noop("a")), done("a"))
    assert spec.state.status == "completed"
    told = spec.when(open_run(noop("b", "a")))
    told.then(RunResumed(RUN_DEADLINE, "tasks were added"), TasksAdded([noop("b", "a")]))
    told.then_follows(began("b"))


def test_an_open_run_that_goes_on_gets_time_for_what_is_added_late():
    spec = run().after(open_run(noop("a"))).later(RUN_TIMEOUT_DEFAULT_MS - 1)
    spec.after(open_run(noop("b")))
    assert spec.state.deadline_at_ms == RUN_DEADLINE + RUN_TIMEOUT_DEFAULT_MS - 1


def test_a_task_that_is_added_behind_a_failed_one_is_blocked():
    spec = run().after(open_run(noop("a"), noop("x")), broke("a", "lua_error"))
    spec.when(open_run(noop("b", "a"))).then_follows(TaskBlocked("b", "a"))


def test_a_run_that_is_not_open_takes_no_more_tasks():
    spec = run().after(start(noop("a"))).when(AddTasks("r1", [noop("b")])).then_rejected("conflict")
    assert statuses(spec) == {"a": "in_progress"}


def test_children_join_a_group_that_is_there_but_not_one_that_ended():
    spec = run().after(open_run(group("g"), noop("x", parent="g"), noop("other")))
    spec.after(open_run(noop("y", parent="g")), done("x"))
    assert statuses(spec)["g"] == "in_progress"
    spec.after(done("y"))
    spec.when(open_run(noop("z", parent="g"))).then_rejected("bad_request", field="parent")


def test_a_child_that_is_added_may_not_wait_for_what_waits_for_its_group():
    spec = run().after(open_run(group("g"), noop("x", parent="g"), noop("behind", "g")))
    spec.when(open_run(noop("y", "behind", parent="g"))).then_rejected("cycle")


def test_an_open_run_without_tasks_is_over_at_once_and_begins_again_with_the_first():
    spec = run().after(StartRun("r1", open=True))
    assert spec.state.status == "completed"
    spec.after(open_run(noop("a")))
    assert spec.state.status == "running"


def test_a_big_plan_is_added_in_parts_that_name_each_other():
    tasks = [noop("join", *(f"t{n}" for n in range(400)))]
    tasks += [noop(f"t{n}", description="x" * 2000) for n in range(400)]
    spec = run().after(start(*tasks, parallel=1000))
    parts = [event for event in spec.history if isinstance(event, TasksAdded)]
    assert len(parts) > 1
    assert max(len(msgspec.json.encode(part)) for part in parts) <= 300 << 10
    spec.after(*(done(f"t{n}") for n in range(400)))
    assert statuses(spec)["join"] == "in_progress"


@pytest.mark.parametrize("size", [3000])
def test_a_long_chain_that_fails_is_blocked_in_one_turn(size: int):
    spec = run().after(start(*(noop(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(size))))
    told = spec.when(broke("t0", "lua_error"))
    assert len(told.follows) == size  # the rest of the chain, and the end of the run
    assert isinstance(told.follows[-1], RunEnded)
