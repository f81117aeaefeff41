"""Runs in the actor host with the log in memory: carried to the end, folded again, taken over after a crash."""

from collections.abc import Callable
from typing import Any

from contracts.run import RunCommand, RunEnded, RunEvent, TaskCompleted
from contracts.subjects import events
from services.executor.replay import Replay
from services.executor.run.decider import RUN
from services.executor.run.effects import RunNoop
from services.executor.run.state import Run, digest
from services.runtime.actor import ActorHost
from services.runtime.clock import FixedClock
from services.runtime.ids import CountingIds
from services.runtime.memory import MemoryEventStore
from tests.support.eventually import eventually
from tests.unit.executor.builders import CODEC, done, noop, start

SUBJECT = events("executor", "run", "r1")


class Noops:
    """Carries noops out at once, or keeps them back."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = works
        self.seen: list[str] = []

    def start(self, actor_id: str, effect: Any, done_: Callable[[RunCommand | None], None]) -> None:
        assert isinstance(effect, RunNoop)
        self.seen.append(effect.task_id)
        if self.works:
            done_(done(effect.task_id, effect.attempt, effect.result))


def host(store: MemoryEventStore, effects: Noops) -> ActorHost[RunCommand, Run, RunEvent]:
    return ActorHost(
        service="executor",
        aggregate="run",
        decider=RUN,
        codec=CODEC,
        store=store,
        clock=FixedClock(),
        ids=CountingIds(),
        effects=effects,
    )


async def log(store: MemoryEventStore) -> list[RunEvent]:
    return [event async for record in store.read(SUBJECT) for event in CODEC.decode(record.data).events]


async def ended(actors: ActorHost[RunCommand, Run, RunEvent]) -> bool:
    run, _ = await actors.read("r1")
    return RUN.is_terminal(run)


async def test_a_run_is_carried_to_its_end_with_few_commits():
    store = MemoryEventStore()
    actors = host(store, Noops())
    middle = [noop(f"t{n}", "root") for n in range(300)]
    plan = start(noop("root"), *middle, noop("join", *(task.id for task in middle)), parallel=1000)
    outcome = await actors.ask("r1", plan)
    assert outcome.state.run_id == "r1"
    await eventually(lambda: ended(actors), timeout_s=10)
    run, _ = await actors.read("r1")
    assert run.status == "completed"
    assert len(store._by_subject[SUBJECT]) == 4
    replay = Replay("r1")
    async for record in store.read(SUBJECT):
        replay.take(CODEC.decode(record.data).events)
    assert replay.report(None, 1.0).equal
    assert digest(replay.run) == digest(run)
    await actors.drain()


async def test_another_executor_takes_over_where_the_first_one_died():
    store = MemoryEventStore()
    first = host(store, Noops(works=False))
    await first.ask("r1", start(noop("a"), noop("b", "a")))
    second_effects = Noops()
    second = host(store, second_effects)
    await second.ask("r1", start(noop("a"), noop("b", "a")))
    await eventually(lambda: ended(second), timeout_s=10)
    assert second_effects.seen == ["a", "b"]
    completed = [event.task_id for event in await log(store) if isinstance(event, TaskCompleted)]
    assert completed == ["a", "b"]
    await first.drain()
    await second.drain()


async def test_two_executors_at_once_cannot_complete_a_task_twice():
    store = MemoryEventStore()
    one, two = host(store, Noops()), host(store, Noops())
    plan = start(*(noop(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(30)))
    await one.ask("r1", plan)
    await two.ask("r1", plan)
    await eventually(lambda: ended(two), timeout_s=20)
    await eventually(lambda: ended(one), timeout_s=20)
    history = await log(store)
    completed = [event.task_id for event in history if isinstance(event, TaskCompleted)]
    assert completed == [f"t{n}" for n in range(30)]
    assert sum(isinstance(event, RunEnded) for event in history) == 1
    await one.drain()
    await two.drain()
