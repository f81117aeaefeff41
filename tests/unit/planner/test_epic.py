"""Epics: what is taken in, what is refused, and what the executor is told."""

import msgspec
import pytest

from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.epic import EpicCreated, EpicEvent, EpicUpdated, GoalPlanned, TasksEnqueued
from contracts.errors import Rejected
from contracts.limits import ID_CHARS_MAX, TASKS_PER_RUN_MAX
from contracts.run import AddTasks, RunOptions, StartRun
from contracts.task import GroupNode, TaskSpec
from services.planner.epic.decider import CHUNK_TASKS_MAX, EPIC, CreateEpic, EnqueueTasks, PlanGoal, UpdateEpic
from services.planner.epic.state import Epic, open_run_of
from services.planner.intake import body_digest
from services.runtime.decider import fold

NOW = 1_790_000_000_000
CREATED = EpicCreated(epic_id="auth", title="Auth", created_by="ann", created_at_ms=NOW)
A, B = TaskSpec(id="a"), TaskSpec(id="b", depends_on=["a"])
PLANNED = GoalPlanned(run_id="r1", goal="Build it", strategy="standard@1", tasks=[A, B], reasoning="two")
PLAN = PlanGoal("r1", "Build it", "standard@1", [A, B], RunOptions(), "two", "ann")


def given(*events: EpicEvent, epic_id: str = "auth") -> Epic:
    return fold(EPIC, EPIC.initial(epic_id), events)


def enqueue(*tasks: TaskSpec, **more) -> EnqueueTasks:
    return EnqueueTasks(list(tasks), more.get("strategy"), more.get("options", RunOptions()), "ann")


def refused(state: Epic, command) -> Rejected:
    with pytest.raises(Rejected) as error:
        EPIC.decide(command, state, NOW)
    return error.value


def test_an_epic_is_changed_where_something_is_given_and_created_once_all_the_same():
    raised = EpicUpdated("Auth", budget_usd_micros=200_000)
    wish = UpdateEpic(budget_usd_micros=200_000)
    assert EPIC.decide(wish, given(CREATED), NOW) == (raised,)
    assert EPIC.decide(wish, given(CREATED, raised), NOW) == ()
    assert EPIC.react(given(CREATED, raised), (raised,)) == []
    after = given(CREATED, raised, EpicUpdated("Better", budget_usd_micros=200_000))
    shown = EPIC.summary(after)
    assert shown is not None
    assert (shown["title"], shown["budget_usd_micros"], shown["created_by"]) == ("Better", 200_000, "ann")
    assert EPIC.decide(CreateEpic("Auth", by="ann"), after, NOW) == ()
    assert refused(given(), wish).code == "epic_not_found"


def test_an_epic_is_created_once_and_said_twice_is_said_once():
    wish = CreateEpic("Auth", by="ann")
    assert EPIC.decide(wish, given(), NOW) == (CREATED,)
    assert EPIC.decide(CreateEpic("Auth", by="bob"), given(CREATED), NOW + 5) == ()
    assert refused(given(CREATED), CreateEpic("Other")).code == "duplicate_id"


def test_only_the_default_epic_comes_into_being_by_itself():
    assert refused(given(), PLAN).code == "epic_not_found"
    assert refused(given(), enqueue(A)).code == "epic_not_found"
    founded, planned = EPIC.decide(PLAN, given(epic_id="default"), NOW)
    assert founded == EpicCreated(epic_id="default", title="Default", created_by="ann", created_at_ms=NOW)
    assert planned == PLANNED


def test_a_plan_is_taken_in_once():
    assert EPIC.decide(PLAN, given(CREATED), NOW) == (PLANNED,)
    assert EPIC.decide(PLAN, given(CREATED, PLANNED), NOW) == ()
    other = PlanGoal("r1", "Build that", None, [A], RunOptions())
    assert refused(given(CREATED, PLANNED), other).code == "duplicate_id"


def test_a_batch_is_one_event_and_the_same_again_is_none():
    state = given(CREATED)
    [event] = EPIC.decide(enqueue(A, B, strategy="standard@1"), state, NOW)
    assert event == TasksEnqueued(run_id="epic-auth", tasks=[A, B], strategy="standard@1")
    state = fold(EPIC, state, [event])
    assert EPIC.decide(enqueue(A), state, NOW) == ()
    assert EPIC.decide(enqueue(B, A), state, NOW) == ()


def test_a_batch_may_repeat_old_tasks_and_depend_on_them():
    state = given(CREATED, TasksEnqueued(run_id="epic-auth", tasks=[A]))
    [event] = EPIC.decide(enqueue(A, B), state, NOW)
    assert [task.id for task in event.tasks] == ["b"]


@pytest.mark.parametrize(
    ("tasks", "code"),
    [
        ((TaskSpec(id="a", title="other"),), "duplicate_id"),
        ((TaskSpec(id="x", depends_on=["nobody"]),), "unknown_dependency"),
        ((TaskSpec(id="x", depends_on=["y"]), TaskSpec(id="y", depends_on=["x"])), "cycle"),
        ((TaskSpec(id="x"), TaskSpec(id="x")), "duplicate_id"),
        ((TaskSpec(id="x"), TaskSpec(id="y", depends_on=["z"])), "unknown_dependency"),
    ],
)
def test_a_batch_is_refused_whole(tasks, code):
    assert refused(given(CREATED, TasksEnqueued(run_id="epic-auth", tasks=[A])), enqueue(*tasks)).code == code


def test_an_epic_holds_no_more_tasks_than_a_run():
    state = given(CREATED)
    state.bodies = dict.fromkeys((f"t{n}" for n in range(TASKS_PER_RUN_MAX)), 0)
    assert refused(state, enqueue(A)).code == "too_large"


def test_a_big_batch_is_several_events_each_behind_what_it_depends_on():
    count = 2 * CHUNK_TASKS_MAX + 5
    tasks = [TaskSpec(id=f"t{n}", depends_on=[f"t{n - 1}"] if n else []) for n in range(count)]
    events = EPIC.decide(enqueue(*reversed(tasks)), given(CREATED), NOW)
    assert [len(event.tasks) for event in events] == [CHUNK_TASKS_MAX, CHUNK_TASKS_MAX, 5]
    seen: set[str] = set()
    for event in events:
        seen.update(task.id for task in event.tasks)
        assert all(needed in seen for task in event.tasks for needed in task.depends_on)
    assert len({effect.msg_id for effect in EPIC.react(given(CREATED), events)}) == 3


def test_a_big_batch_with_groups_stays_whole():
    group = TaskSpec(id="g", node=GroupNode())
    children = [TaskSpec(id=f"t{n}", parent="g") for n in range(CHUNK_TASKS_MAX + 1)]
    assert len(EPIC.decide(enqueue(group, *children), given(CREATED), NOW)) == 1


def test_a_plan_is_handed_over_as_the_start_of_its_run():
    options = RunOptions(parallel=3, stream=True)
    event = msgspec.structs.replace(PLANNED, options=msgspec.to_builtins(options))
    [effect] = EPIC.react(given(CREATED, event), [CREATED, event])
    assert (effect.msg_id, effect.subject) == ("start:r1", "htdag.v1.cmd.executor.run.r1.start")
    assert effect.body == StartRun(
        run_id="r1", goal="Build it", epic_id="auth", tasks=[A, B], options=options, strategy="standard@1"
    )


def test_tasks_are_handed_over_to_the_open_run_of_their_epic():
    event = TasksEnqueued(run_id="epic-auth", tasks=[A, B], strategy="standard@1", options={"parallel": 2})
    [effect] = EPIC.react(given(CREATED, event), [event])
    assert (effect.msg_id, effect.subject) == ("add:epic-auth:a", "htdag.v1.cmd.executor.run.epic-auth.add")
    assert effect.body == AddTasks(
        run_id="epic-auth", tasks=[A, B], epic_id="auth", options=RunOptions(parallel=2), strategy="standard@1"
    )


def test_what_is_enqueued_together_travels_together_but_never_past_the_bounds():
    state = given(CREATED)
    events = [TasksEnqueued(run_id="epic-auth", tasks=[TaskSpec(id=f"t{n}")]) for n in range(CHUNK_TASKS_MAX + 1)]
    big = [TasksEnqueued(run_id="epic-auth", tasks=[TaskSpec(id=f"b{n}", title="x" * 20_000)]) for n in range(30)]
    effects = EPIC.react(state, [*events, PLANNED, *big])
    assert [effect.msg_id for effect in effects] == [
        "add:epic-auth:t0", f"add:epic-auth:t{CHUNK_TASKS_MAX}", "start:r1", "add:epic-auth:b0", "add:epic-auth:b20",
    ]  # fmt: skip
    sent = [task.id for effect in effects for task in effect.body.tasks]
    assert sent == [f"t{n}" for n in range(CHUNK_TASKS_MAX + 1)] + ["a", "b"] + [f"b{n}" for n in range(30)]


def test_the_open_run_of_every_epic_has_an_id_of_its_own():
    long = "e" * ID_CHARS_MAX
    ids = {open_run_of(epic_id) for epic_id in (long, long[:-1] + "x", "e", "default")}
    assert len(ids) == 4
    assert max(map(len, ids)) <= ID_CHARS_MAX
    assert open_run_of("default") == "epic-default"


def test_folding_from_the_wire_equals_folding_in_memory():
    codec: CommitCodec[EpicEvent] = CommitCodec(EpicEvent)
    events: list[EpicEvent] = [CREATED, PLANNED, TasksEnqueued(run_id="epic-auth", tasks=[A, B])]
    data = codec.encode(Commit(at="", by="", cause="", corr="", events=events))
    assert given(*codec.decode(data).events) == given(*events)
    assert given(*events).bodies == {"a": body_digest(A), "b": body_digest(B)}


def test_the_summary_is_what_a_list_shows():
    assert EPIC.summary(given()) is None
    shown = EPIC.summary(given(CREATED, PLANNED))
    assert shown is not None
    assert (shown["title"], shown["created_by"], shown["runs"]) == ("Auth", "ann", 1)
