"""A folded run goes on like the one that was never forgotten, and its image is bound to the shape of the state."""

import hashlib
import time

import msgspec
import pytest

from contracts.run import RunCommand, RunCreated, RunOptions, TaskRetryScheduled, TasksAdded, TaskStarted
from contracts.task import TaskSpec
from services.executor.run import snapshot
from services.executor.run.decider import RUN
from services.executor.run.snapshot import FORMAT, dump, restore
from services.executor.run.state import Call, Run, Taint, Talk, TaskRecord, Work, digest
from services.runtime.decider import fold
from tests.support.spec import NOW_MS
from tests.unit.executor.builders import COMPLETE, agent, answer, broke, done, group, llm, noop, run, spawn, start

ERROR = {"class": "x", "code": "no_responders", "message": "m"}
DEADLINE = NOW_MS + 3_600_000


def folded(*events) -> Run:
    return fold(RUN, RUN.initial("r1"), [RunCreated("r1", DEADLINE), *events])


def test_a_retry_that_was_folded_from_the_log_waits_for_its_time():
    state = folded(
        TasksAdded([noop("a")]),
        TaskStarted("a", 1, DEADLINE),
        TaskRetryScheduled("a", 1, NOW_MS + 500, ERROR),
    )
    assert list(RUN.advance(state, NOW_MS)) == []
    assert [event.task_id for event in RUN.advance(state, NOW_MS + 500)] == ["a"]


@pytest.mark.parametrize("halves", [1, 2])
def test_a_graph_that_came_in_parts_is_linked_in_the_order_of_its_tasks(halves: int):
    tasks: list[TaskSpec] = [
        group("late", parent="top", depth=1),
        noop("x", "need"),
        group("top"),
        noop("need"),
        noop("y", "need"),
        group("soon", parent="top", depth=1),
    ]
    parts = [TasksAdded(tasks)] if halves == 1 else [TasksAdded(tasks[:2]), TasksAdded(tasks[2:])]
    state = folded(*parts)
    assert [task.spec.id for task in state.tasks["need"].dependents] == ["x", "y"]
    assert [task.spec.id for task in state.tasks["top"].children] == ["late", "soon"]


def test_a_restored_run_carries_on_in_the_middle_of_everything():
    spec = run().after(
        start(
            agent("team"),
            llm("asked", max_attempts=2),
            noop("flaky"),
            group("top"),
            noop("child", parent="top", depth=1),
            noop("after", "asked"),
            strategy="standard@1",
        ),
        done("team", value=spawn("coder", "tester"), step="spawn"),
        done("team", value={"pattern": "sequential"}, step="orchestrate"),
        broke("flaky", "no_responders"),
    )
    there = restore(dump(spec.state))
    assert dump(there) == dump(spec.state)
    assert digest(there) == digest(spec.state)
    assert RUN.recover(there) == RUN.recover(spec.state)
    assert RUN.deadline_at_ms(there) == RUN.deadline_at_ms(spec.state)
    [first] = [corr_id for corr_id in there.calls if ".team." in corr_id]
    commands: list[RunCommand] = [
        answer(first),
        answer(f"{first[:-1]}2"),
        done("team", value=COMPLETE, step="complete"),
        answer("r1.asked.1.llm-1"),
        done("child"),
    ]
    for command in commands:
        for state in (there, spec.state):
            events = [*RUN.decide(command, state, NOW_MS + 1_000)]
            assert events
            fold(RUN, state, events)
            while follows := RUN.advance(state, NOW_MS + 1_000):
                fold(RUN, state, follows)
        assert dump(there) == dump(spec.state)
    assert [task.status for task in there.tasks.values()].count("completed") == 4


def test_bytes_that_are_no_image_are_refused():
    data = dump(run().after(start(noop("a"), noop("b", "a"))).state)
    for broken in (b"", b"nonsense", data[:-1], data[: len(data) // 2], msgspec.msgpack.encode({"run_id": "r1"})):
        with pytest.raises(Exception, match=r".*"):
            restore(broken)


def shape() -> str:
    """Everything that an image or a state is made of, as one short word."""
    images = (snapshot.RunImage, snapshot.TaskImage, snapshot.WorkImage, snapshot.CallImage, snapshot.TalkImage)
    states = (TaskRecord, Work, Call, Talk, Taint)
    words = [f"{kind.__name__}:{','.join(kind.__struct_fields__)}" for kind in (*images, *states)]
    words += [",".join(Run.__slots__), ",".join(snapshot.STATES), ",".join(RunOptions.__struct_fields__)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def test_another_shape_needs_another_format():
    """When this fails: say in `snapshot` what is new, give FORMAT another name, and write the new pair here."""
    assert (FORMAT, shape()) == ("run-9", "48b63c982801c2e2")


def test_a_big_run_is_dumped_quickly_enough_for_the_event_loop():
    tasks = [noop(f"t{number}", *([f"t{number - 1000}"] if number >= 1000 else [])) for number in range(20_000)]
    state = folded(TasksAdded(tasks), *(TaskStarted(f"t{number}", 1, DEADLINE) for number in range(1000)))
    best = min(_timed(state) for _ in range(5))
    assert best < 0.06, f"{best * 1000:.0f} ms"


def _timed(state: Run) -> float:
    began = time.process_time()
    dump(state)
    return time.process_time() - began
