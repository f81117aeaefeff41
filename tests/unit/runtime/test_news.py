"""Several processes that write the same aggregates as a rule: each takes in what is new instead of losing races."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts import subjects
from services.runtime.actor import ActorHost
from services.runtime.clock import FixedClock
from services.runtime.event_store import Recorded
from services.runtime.ids import CountingIds
from services.runtime.memory import MemoryEventStore
from tests.support.tally import CODEC, TALLY, Raise

SUBJECT = subjects.events("identity", "tally", "t1")


class CountingStore(MemoryEventStore):
    """Counts the commits that were read, and the appends that lost a race."""

    read_commits = 0
    appends = 0

    async def read(self, subject: str, after: int = 0) -> AsyncIterator[Recorded]:
        async for record in super().read(subject, after):
            self.read_commits += 1
            yield record

    async def append(self, *given: Any, **named: Any) -> int:
        self.appends += 1
        return await super().append(*given, **named)


class Conflicts:
    """An observer that counts lost races."""

    count = 0

    def conflict(self) -> None:
        self.count += 1

    def committed(self, events: Any, seconds: float) -> None:
        pass

    def failed(self, actor_id: str, error: BaseException) -> None:
        raise error


def shared_host(store: MemoryEventStore, observer: Conflicts) -> ActorHost[Any, Any, Any]:
    return ActorHost(
        service="identity", aggregate="tally", decider=TALLY, codec=CODEC, store=store, clock=FixedClock(),
        ids=CountingIds(), observer=observer, shared=True,
    )  # fmt: skip


async def written_by_one(
    store: CountingStore, observer: Conflicts, commits: int, last: int = 1
) -> list[ActorHost[Any, Any, Any]]:
    """Two hosts on one log that the first has written; the second has only appended the last commit."""
    one, other = shared_host(store, observer), shared_host(store, observer)
    for number in range(commits):
        await one.ask("t1", Raise(1), message_id=f"a{number}")
    await other.ask("t1", Raise(last), message_id="b")
    store.read_commits = 0
    return [one, other]


async def test_who_did_not_write_last_reads_only_what_is_new_and_loses_no_race() -> None:
    store, observer = CountingStore(), Conflicts()
    one, other = await written_by_one(store, observer, 100)
    for number in range(20):
        await (one, other)[number % 2].ask("t1", Raise(1), message_id=f"c{number}")
    assert (await one.read("t1"))[0].total == 121
    assert observer.count == 0
    assert store.appends == 121
    # Each turn reads its own last commit and at most the other's.
    assert store.read_commits <= 2 * 21 + 1


async def test_a_read_takes_in_what_is_new_and_does_not_fold_again() -> None:
    store, observer = CountingStore(), Conflicts()
    one, _ = await written_by_one(store, observer, 50, last=2)
    state, seq = await one.read("t1")
    assert (state.total, seq, store.read_commits) == (52, 51, 2)


async def test_both_at_once_is_a_race_that_is_decided_anew() -> None:
    store, observer = CountingStore(), Conflicts()
    hosts = shared_host(store, observer), shared_host(store, observer)
    await asyncio.gather(*(hosts[n % 2].ask("t1", Raise(1), message_id=f"m{n}") for n in range(40)))
    assert [(await host.read("t1"))[0].total for host in hosts] == [40, 40]


@pytest.mark.parametrize("commits", [0, 3])
async def test_a_log_that_was_begun_anew_is_folded_anew(commits: int) -> None:
    store, observer = CountingStore(), Conflicts()
    host = shared_host(store, observer)
    for number in range(5):
        await host.ask("t1", Raise(1), message_id=f"a{number}")
    lost = MemoryEventStore()
    writer = shared_host(lost, observer)
    for number in range(commits):
        await writer.ask("t1", Raise(10), message_id=f"n{number}")
    store.__dict__.update(lost.__dict__)
    assert (await host.read("t1"))[0].total == commits * 10
    outcome = await host.ask("t1", Raise(1), message_id="after")
    assert outcome.state.total == commits * 10 + 1


async def test_nothing_is_known_of_what_was_never_written() -> None:
    store, observer = CountingStore(), Conflicts()
    assert (await shared_host(store, observer).read("t9"))[1] == 0
    assert store.read_commits == 0


async def test_a_smuggled_message_has_a_place_and_says_nothing() -> None:
    store, observer = CountingStore(), Conflicts()
    host = shared_host(store, observer)
    await host.ask("t1", Raise(1), message_id="a")
    store.smuggle(SUBJECT)
    outcome = await host.ask("t1", Raise(1), message_id="b")
    assert (outcome.state.total, outcome.seq, observer.count) == (2, 3, 0)
