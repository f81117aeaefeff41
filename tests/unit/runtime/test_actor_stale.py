"""An actor whose log was written by another process meanwhile: frozen, cut off, or its partition went and came back."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts import subjects
from contracts.errors import Rejected
from services.runtime.actor import ActorHost
from services.runtime.clock import FixedClock
from services.runtime.event_store import Recorded
from services.runtime.ids import CountingIds
from services.runtime.memory import MemoryEventStore
from tests.support.eventually import eventually
from tests.support.tally import CODEC, TALLY, Answer, Ask, Raise, TimePassed

SUBJECT = subjects.events("executor", "tally", "t1")


class SilentEffects:
    """Begins nothing and ends everything."""

    def start(self, actor_id: str, effect: Any, done: Any) -> None:
        done(None)


class CountedStore(MemoryEventStore):
    """Counts how often the newest message was asked for."""

    asked = 0

    async def newest(self, subject: str) -> int:
        self.asked += 1
        return await super().newest(subject)


def host_on(store: MemoryEventStore) -> ActorHost[Any, Any, Any]:
    return ActorHost(
        service="executor",
        aggregate="tally",
        decider=TALLY,
        codec=CODEC,
        store=store,
        clock=FixedClock(),
        ids=CountingIds(),
        effects=SilentEffects(),
    )


async def test_an_input_that_only_the_newer_log_understands_is_not_lost() -> None:
    store = MemoryEventStore()
    frozen, other = host_on(store), host_on(store)
    await frozen.ask("t1", Raise(1))
    await other.ask("t1", Ask("a"))
    settled: list[BaseException | None] = []
    frozen.deliver("t1", Answer("a", "yes"), message_id="m1", settled=settled.append)
    await eventually(lambda: settled == [None])
    assert (await other.read("t1"))[0].answers == {"a": "yes"}


async def test_what_is_old_in_the_newer_log_is_settled_without_an_event() -> None:
    store = MemoryEventStore()
    frozen, other = host_on(store), host_on(store)
    await frozen.ask("t1", Ask("a"))
    await other.ask("t1", Answer("a", "first"))
    settled: list[BaseException | None] = []
    frozen.deliver("t1", Answer("a", "second"), message_id="m1", settled=settled.append)
    await eventually(lambda: settled == [None])
    assert (await other.read("t1"))[0].answers == {"a": "first"}


async def test_an_answer_without_events_tells_of_the_newer_log() -> None:
    store = MemoryEventStore()
    frozen, other = host_on(store), host_on(store)
    await frozen.ask("t1", Ask("a"))
    await other.ask("t1", Raise(5))
    outcome = await frozen.ask("t1", Ask("a"))
    assert (outcome.state.total, outcome.seq, list(outcome.events)) == (5, 2, [])


async def test_a_refusal_is_checked_against_the_log() -> None:
    store = CountedStore()
    host = host_on(store)
    await host.ask("t1", Raise(1))
    with pytest.raises(Rejected, match="only upwards"):
        await host.ask("t1", Raise(0))
    assert store.asked == 1


async def test_a_state_folded_from_a_replica_that_lags_is_folded_again() -> None:
    class Lagging(MemoryEventStore):
        """Reads from a replica that has not heard of the last message the first time."""

        lags = 0

        async def read(self, subject: str, after: int = 0) -> AsyncIterator[Recorded]:
            records = [record async for record in super().read(subject, after)]
            if self.lags:
                self.lags -= 1
                records.pop()
            for record in records:
                yield record

    store = Lagging()
    host = host_on(store)
    await host.ask("t1", Ask("a"))
    again = host_on(store)
    store.lags = 1
    settled: list[BaseException | None] = []
    again.deliver("t1", Answer("a", "yes"), message_id="m1", settled=settled.append)
    await eventually(lambda: settled == [None])
    assert again.states()["t1"].answers == {"a": "yes"}


async def test_what_commits_or_concerns_nobody_asks_for_nothing() -> None:
    store = CountedStore()
    host = host_on(store)
    await host.ask("t1", Raise(1))
    host.deliver("t1", TimePassed(), message_id="time")
    await host.ask("t1", Raise(1))
    assert store.asked == 0


async def test_a_log_that_cannot_be_asked_lets_the_input_come_again() -> None:
    class Deaf(MemoryEventStore):
        async def newest(self, subject: str) -> int:
            raise Rejected("nats_unavailable")

    host = host_on(Deaf())
    await host.ask("t1", Raise(1))
    settled: list[BaseException | None] = []
    host.deliver("t1", Answer("a", "yes"), message_id="m1", settled=settled.append)
    await eventually(lambda: len(settled) == 1)
    assert isinstance(settled[0], Rejected)
