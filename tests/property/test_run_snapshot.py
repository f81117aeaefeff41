"""A snapshot and the tail of a log say the same as the whole log, wherever it is cut; nobody can tell them apart."""

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.run import AddTasks, CancelRun, ResumeRun, RunEvent, StartRun, TasksAdded
from contracts.task import TaskSpec
from services.executor.run.decider import RUN
from services.executor.run.snapshot import dump, restore
from services.executor.run.state import Run, digest, may_start
from services.executor.views import result_of_run, view_of
from services.runtime.decider import fold
from tests.property.run_world import CODEC, World
from tests.property.test_run_stories import plans, starts

STORY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 2**32)


class Snapping(World):
    """A world whose host forgets its state after every turn, and after a crash reads a snapshot and the tail."""

    def __init__(self, choose: Any, *, every: int) -> None:
        super().__init__(choose)
        self.every, self.kept, self.at = every, dump(self.run), 0

    def turn(self, commands: list[Any]) -> None:
        super().turn(commands)
        image = dump(self.run)
        self.run = restore(image)
        assert dump(self.run) == image
        if len(self.log) - self.at >= self.every:
            self.kept, self.at = image, len(self.log)

    def folded(self) -> Run:
        tail = [event for data in self.log[self.at :] for event in CODEC.decode(data).events]
        return fold(RUN, restore(self.kept), tail)


def told(world: World, start: StartRun, more: list[TaskSpec]) -> World:
    """A long story: to its end, resumed if it ended badly, with tasks that are added on the way."""
    world.turn([start])
    for number in range(40):
        world.step(start)
        if number == 20 and more:
            world.turn([AddTasks("r1", more)])
        if number == 30 and not RUN.is_terminal(world.run) and world.choose(2):
            world.turn([CancelRun("enough")])
    while world.run.status is None:
        world.turn([start])
    world.live(start)
    if world.choose(2) and any(task.status != "completed" for task in world.run.tasks.values()):
        world.turn([ResumeRun()])
        for _ in range(world.choose(40)):
            world.step(start)
    return world


def opened(start: StartRun, plan: list[TaskSpec]) -> tuple[StartRun, list[TaskSpec]]:
    """The run, open, and the tasks of another plan under other names, some of them waiting for the first."""
    names = {task.id: f"m{task.id}" for task in plan}
    needed = [task.id for task in start.tasks if task.parent is None][:1]
    more = [
        TaskSpec(
            id=names[task.id],
            depends_on=[*(names[other] for other in task.depends_on), *(needed if task.parent is None else [])],
            parent=None if task.parent is None else names[task.parent],
            depth=task.depth,
            node=task.node,
            priority=task.priority,
        )
        for task in plan
    ]
    begin = StartRun(start.run_id, tasks=start.tasks, options=start.options, strategy=start.strategy, open=True)
    return begin, more


def links(run: Run) -> list[Any]:
    """What follows from the facts and is built anew."""
    ready = {rank[3] for rank in (*run.ready, *run.chosen) if rank[4].rank is rank and may_start(rank[4])}
    return [
        (run.open_count, run.running, run.completed_count, run.failed_count, run.cancelled_count, ready),
        *(
            (task.waiting_on, task.children_open, task.children_bad, [child.order for child in task.children])
            for task in run.tasks.values()
        ),
        *([other.order for other in task.dependents] for task in run.tasks.values() if task.status != "completed"),
        *(may_start(task) for task in run.tasks.values()),
        {needed: [task.order for task in waiting] for needed, waiting in run.unresolved.items()},
    ]


def seen(run: Run) -> list[Any]:
    """Everything that a run shows and does."""
    shown = [digest(run), view_of(run, 0), result_of_run(run), [*RUN.recover(run)], RUN.deadline_at_ms(run), links(run)]
    at_ms = RUN.deadline_at_ms(run) or 0
    for now_ms in (0, at_ms, at_ms + 1_000_000):
        shown.append([*RUN.advance(run, now_ms)])
    return shown


def check_cut(events: list[RunEvent], at: int) -> None:
    image = dump(fold(RUN, RUN.initial("r1"), events[:at]))
    assert dump(restore(image)) == image
    assert seen(restore(image)) == seen(fold(RUN, RUN.initial("r1"), events[:at]))
    one = fold(RUN, restore(image), events[at:])
    other = fold(RUN, RUN.initial("r1"), events)
    assert dump(one) == dump(other)
    assert seen(one) == seen(other)


def in_parts(events: list[RunEvent], size: int) -> list[RunEvent]:
    """The same history, with graphs that were too big for one event."""
    return [
        part
        for event in events
        for part in (
            [TasksAdded(event.tasks[at : at + size]) for at in range(0, len(event.tasks), size)]
            if isinstance(event, TasksAdded)
            else [event]
        )
    ]


@STORY
@given(starts(), plans(), SEEDS, st.floats(0, 1), st.integers(1, 12))
def test_a_log_may_be_cut_anywhere(start: StartRun, plan: list[TaskSpec], seed: int, cut: float, size: int):
    begin, more = opened(start, plan)
    events = in_parts(told(World(random.Random(seed).randrange), begin, more).events(), size)
    check_cut(events, 1 + round(cut * (len(events) - 1)))


@STORY
@given(starts(), plans(), SEEDS, st.integers(1, 9))
def test_nobody_notices_that_a_run_is_forgotten_and_restored_all_the_time(
    start: StartRun, plan: list[TaskSpec], seed: int, every: int
):
    begin, more = opened(start, plan)
    plain = told(World(random.Random(seed).randrange), begin, more)
    snapping = told(Snapping(random.Random(seed).randrange, every=every), begin, more)
    assert [CODEC.decode(data).events for data in snapping.log] == [CODEC.decode(data).events for data in plain.log]
    assert seen(snapping.run) == seen(plain.run)
