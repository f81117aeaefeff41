"""The laws of actors, on the memory store."""

import asyncio
import dataclasses
from typing import Any

import pytest

from contracts import subjects
from contracts.errors import Rejected
from services.runtime import faults
from services.runtime.actor import ActorHost
from services.runtime.clock import FixedClock
from services.runtime.event_store import Conflict
from services.runtime.host_limits import HostLimits
from services.runtime.ids import CountingIds
from services.runtime.mailbox import Interrupted
from services.runtime.memory import MemoryEventStore
from tests.support.eventually import eventually
from tests.support.tally import CODEC, TALLY, Answer, Ask, Break, Raise, WaitUntil

SUBJECT = subjects.events("executor", "tally", "t1")


class HeldEffects:
    """Starts nothing by itself: the test ends each effect when it wants."""

    def __init__(self) -> None:
        self.started: list[tuple[str, Any]] = []

    def start(self, actor_id: str, effect: Any, done: Any) -> None:
        self.started.append((effect.key, done))


class RecordedTimers:
    """Remembers what was armed."""

    def __init__(self) -> None:
        self.armed: list[tuple[str, int]] = []

    async def arm(self, actor_id: str, at_ms: int) -> None:
        self.armed.append((actor_id, at_ms))

    async def disarm(self, actor_id: str) -> None:
        self.armed.append((actor_id, 0))


class SlowStore(MemoryEventStore):
    """Holds appends until released, so that mail gathers meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.appends = 0

    async def append(self, *args: Any, **kwargs: Any) -> int:
        self.appends += 1
        await self.gate.wait()
        return await super().append(*args, **kwargs)


def host_on(store: Any, clock: FixedClock | None = None, **options: Any) -> ActorHost[Any, Any, Any]:
    return ActorHost(
        service="executor",
        aggregate="tally",
        decider=options.pop("decider", TALLY),
        codec=CODEC,
        store=store,
        clock=clock or FixedClock(),
        ids=CountingIds(),
        **options,
    )


async def commits(store: MemoryEventStore) -> list[list[Any]]:
    return [CODEC.decode(record.data).events async for record in store.read(SUBJECT)]


async def test_a_command_is_answered_after_its_commit() -> None:
    store = MemoryEventStore()
    outcome = await host_on(store).ask("t1", Raise(2))
    assert (outcome.state.total, outcome.seq, len(await commits(store))) == (2, 1, 1)


async def test_what_waits_together_is_committed_together() -> None:
    store = SlowStore()
    host = host_on(store)
    asks = [asyncio.create_task(host.ask("t1", Raise(1))) for _ in range(100)]
    await eventually(lambda: store.appends == 1)
    store.gate.set()
    await asyncio.gather(*asks)
    assert [len(events) for events in await commits(store)] == [100]


async def test_a_refusal_is_a_reply_and_writes_nothing() -> None:
    store = MemoryEventStore()
    host = host_on(store)
    with pytest.raises(Rejected, match="only upwards"):
        await host.ask("t1", Raise(0))
    assert await commits(store) == []
    assert (await host.ask("t1", Raise(1))).state.total == 1


async def test_a_lost_race_is_decided_again_on_the_newer_state() -> None:
    store = MemoryEventStore()
    first, second = host_on(store), host_on(store)
    for _ in range(5):
        await asyncio.gather(first.ask("t1", Raise(1)), second.ask("t1", Raise(1)))
    state, seq = await first.read("t1")
    assert (state.total, seq) == (10, 10)


async def test_a_bug_is_told_to_the_caller_and_the_actor_lives_on() -> None:
    host = host_on(MemoryEventStore())
    await host.ask("t1", Raise(3))
    with pytest.raises(Rejected) as refused:
        await host.ask("t1", Break())
    assert refused.value.code == "internal"
    assert (await host.ask("t1", Raise(1))).state.total == 4


async def test_an_effect_starts_after_its_commit_and_its_result_is_committed() -> None:
    store, effects = MemoryEventStore(), HeldEffects()
    host = host_on(store, effects=effects)
    await host.ask("t1", Ask("a"))
    [(key, done)] = effects.started
    done(Answer(key, "yes"))
    await eventually(lambda: host.states()["t1"].answers == {"a": "yes"})
    assert len(await commits(store)) == 2


async def test_an_input_is_settled_only_when_no_effect_runs() -> None:
    effects, settled = HeldEffects(), []
    host = host_on(MemoryEventStore(), effects=effects)
    host.deliver("t1", Ask("a"), message_id="m1", settled=settled.append)
    await eventually(lambda: len(effects.started) == 1)
    assert settled == []
    effects.started[0][1](Answer("a", "yes"))
    await eventually(lambda: settled == [None])


async def test_the_timer_is_armed_before_the_input_is_settled() -> None:
    timers, order = RecordedTimers(), []
    host = host_on(MemoryEventStore(), timers=timers)
    host.deliver(
        "t1", WaitUntil(1_790_000_009_000), message_id="m1", settled=lambda _: order.append(list(timers.armed))
    )
    await eventually(lambda: bool(order))
    assert order == [[("t1", 1_790_000_009_000)]]


async def test_time_is_judged_while_the_actor_is_in_memory() -> None:
    clock = FixedClock()
    host = host_on(MemoryEventStore(), clock)
    await host.ask("t1", WaitUntil(clock.now_ms() + 20))
    clock.advance(20)
    await eventually(lambda: host.states()["t1"].total == -1)


async def test_a_folded_actor_starts_what_was_open() -> None:
    store, before, after = MemoryEventStore(), HeldEffects(), HeldEffects()
    await host_on(store, effects=before).ask("t1", Ask("a"))
    await host_on(store, effects=after).ask("t1", Raise(1))
    assert [key for key, _ in after.started] == ["a"]


async def test_an_effect_that_runs_is_not_started_twice_when_a_race_is_lost() -> None:
    store, effects = MemoryEventStore(), HeldEffects()
    host = host_on(store, effects=effects)
    await host.ask("t1", Ask("a"))
    await host_on(store, effects=HeldEffects()).ask("t1", Raise(1))
    await host.ask("t1", Raise(1))  # conflict, fold, recover
    assert [key for key, _ in effects.started] == ["a"]


async def test_draining_hands_back_what_is_not_finished() -> None:
    effects, settled = HeldEffects(), []
    host = host_on(MemoryEventStore(), effects=effects)
    host.deliver("t1", Ask("a"), message_id="m1", settled=settled.append)
    await eventually(lambda: len(effects.started) == 1)
    await host.drain()
    assert isinstance(settled[0], Interrupted)


async def test_a_full_mailbox_refuses_and_loses_nothing_it_took() -> None:
    store = SlowStore()
    host = host_on(store, limits=HostLimits(mailbox_messages_max=2))
    taken = [asyncio.create_task(host.ask("t1", Raise(1)))]
    await eventually(lambda: store.appends == 1)
    taken += [asyncio.create_task(host.ask("t1", Raise(1))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Rejected) as refused:
        await host.ask("t1", Raise(1))
    assert refused.value.code == "mailbox_full"
    store.gate.set()
    await asyncio.gather(*taken)
    assert host.states()["t1"].total == 3


async def test_a_big_decision_is_stored_in_parts_and_folds_to_the_same() -> None:
    store = SlowStore()
    host = host_on(store, limits=HostLimits(commit_bytes_max=600))
    asks = [asyncio.create_task(host.ask("t1", Raise(1))) for _ in range(50)]
    await eventually(lambda: store.appends == 1)
    store.gate.set()
    await asyncio.gather(*asks)
    parts = await commits(store)
    assert len(parts) > 1
    assert sum(map(len, parts)) == 50
    assert (await host_on(store).ask("t1", Raise(1))).state.total == 51


async def test_passivation_forgets_only_actors_at_rest() -> None:
    store, effects, clock = MemoryEventStore(), HeldEffects(), FixedClock()
    host = host_on(store, clock, effects=effects)
    await host.ask("t1", Raise(1))
    await host.ask("t2", Ask("a"))
    clock.advance(60_000)
    assert host.passivate() == 1
    assert list(host.states()) == ["t2"]
    assert (await host.ask("t1", Raise(1))).state.total == 2


async def test_one_poisoned_message_fails_alone() -> None:
    store = SlowStore()
    host, settled = host_on(store), []
    first = asyncio.create_task(host.ask("t1", Raise(1)))
    await eventually(lambda: store.appends == 1)
    for number, command in enumerate((Raise(2), Break(), Raise(3))):
        host.deliver(
            "t1", command, message_id=str(number), settled=lambda error, number=number: settled.append((number, error))
        )
    store.gate.set()
    await first
    await eventually(lambda: len(settled) == 3)
    outcomes = dict(settled)
    assert isinstance(outcomes[0], Interrupted)  # committed, and comes again: with the state went what it had begun
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert outcomes[2] is None
    assert (await host.read("t1"))[0].total == 6


class HeldTimers(RecordedTimers):
    """Arming takes until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def arm(self, actor_id: str, at_ms: int) -> None:
        await self.gate.wait()
        await super().arm(actor_id, at_ms)


async def test_a_moment_that_falls_due_while_another_is_armed_is_armed_too() -> None:
    timers, clock = HeldTimers(), FixedClock()
    host = host_on(MemoryEventStore(), clock, timers=timers)
    await host.ask("t1", WaitUntil(clock.now_ms() + 90_000))
    await host.ask("t1", WaitUntil(clock.now_ms() + 60_000))
    timers.gate.set()
    await eventually(lambda: ("t1", clock.now_ms() + 60_000) in timers.armed)


async def test_what_no_durable_timer_wakes_stays_in_memory() -> None:
    class NoRoom(RecordedTimers):
        async def arm(self, actor_id: str, at_ms: int) -> None:
            raise Rejected("storage_full")

    clock = FixedClock()
    host = host_on(MemoryEventStore(), clock, timers=NoRoom())
    await host.ask("t1", WaitUntil(clock.now_ms() + 3_600_000))
    clock.advance(600_000)
    assert host.passivate() == 0


async def test_of_actors_that_are_over_only_the_newest_stay() -> None:
    store, clock = MemoryEventStore(), FixedClock()
    host = host_on(store, clock, limits=HostLimits(ended_max=2))
    for name in ("a", "b", "c", "d"):
        await host.ask(name, Raise(1_000_000))
    await host.ask("alive", Raise(1))
    await eventually(lambda: sorted(host.states()) == ["alive", "c", "d"])
    assert (await host.read("a"))[0].total == 1_000_000


async def test_of_actors_that_are_over_the_heaviest_go_first_and_at_once() -> None:
    store, clock = MemoryEventStore(), FixedClock()
    weighing = dataclasses.replace(TALLY, weight=lambda state: state.total // 1_000_000)
    host = host_on(store, clock, limits=HostLimits(ended_weight_max=4), decider=weighing)
    for name, weight in (("a", 1), ("b", 3), ("c", 1), ("d", 9), ("e", 2)):
        await host.ask(name, Raise(weight * 1_000_000))
    await eventually(lambda: sorted(host.states()) == ["a", "c", "e"])
    assert (await host.read("d"))[0].total == 9_000_000


async def test_a_failed_append_hands_the_input_back_and_keeps_no_false_state() -> None:
    class Failing(MemoryEventStore):
        fail = True

        async def append(self, *args: Any, **kwargs: Any) -> int:
            if self.fail:
                raise Rejected("storage_full")
            return await super().append(*args, **kwargs)

    store, settled = Failing(), []
    host = host_on(store)
    host.deliver("t1", Raise(5), message_id="m1", settled=settled.append)
    await eventually(lambda: bool(settled))
    assert isinstance(settled[0], Rejected)
    store.fail = False
    assert (await host.ask("t1", Raise(1))).state.total == 1


async def test_the_memory_store_knows_conflicts_and_repeats() -> None:
    store = MemoryEventStore()
    assert await store.append(SUBJECT, [b"a"], expect=0, msg_id="1", headers={}) == 1
    assert await store.append(SUBJECT, [b"a"], expect=0, msg_id="1", headers={}) == 1
    with pytest.raises(Conflict):
        await store.append(SUBJECT, [b"b"], expect=0, msg_id="2", headers={})


def test_only_known_crash_points_can_be_armed() -> None:
    with pytest.raises(KeyError):
        faults.arm("no.such.point", lambda: None)
