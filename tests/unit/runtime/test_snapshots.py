"""Snapshots beside a log: a host wakes from the newest one and the tail; a bad one costs nothing but time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from contracts import subjects
from contracts.commit import Commit
from contracts.errors import Rejected
from services.runtime.actor import ActorHost
from services.runtime.bus import Bus
from services.runtime.clock import FixedClock
from services.runtime.direct_get import STORED_AT
from services.runtime.event_store import Recorded
from services.runtime.folding import Folding
from services.runtime.host_limits import HostLimits
from services.runtime.ids import CountingIds
from services.runtime.memory import MemoryEventStore
from services.runtime.publisher import Stored
from services.runtime.snapshots import HEADER_AT_SEQ, HEADER_FORMAT, JetStreamSnapshots, Kept
from tests.support.eventually import eventually
from tests.support.tally import CODEC, TALLY, Answer, Ask, Raise, Raised, Tally

SUBJECT = subjects.events("executor", "tally", "t1")


def dump(state: Tally) -> bytes:
    return msgspec.msgpack.encode(state)


def restore(data: bytes) -> Tally:
    return msgspec.msgpack.decode(data, type=Tally)


class Shelf:
    """Snapshots in memory."""

    def __init__(self, every: int = 0) -> None:
        self.kept: dict[str, tuple[bytes, int]] = {}
        self.saved: list[int] = []
        self.stored_at = ""
        self._every = every

    def every(self, state: Tally) -> int:
        return self._every

    def save(self, subject: str, seq: int, state: Tally) -> None:
        self.kept[subject] = (dump(state), seq)
        self.saved.append(seq)

    async def load(self, subject: str) -> Kept[Tally] | None:
        found = self.kept.get(subject)
        return None if found is None else Kept(restore(found[0]), found[1], self.stored_at)


class WatchedStore(MemoryEventStore):
    """Remembers which commits were read."""

    def __init__(self) -> None:
        super().__init__()
        self.was_read: list[int] = []

    async def read(self, subject: str, after: int = 0) -> AsyncIterator[Recorded]:
        async for record in super().read(subject, after):
            self.was_read.append(record.seq)
            yield record


class HeldEffects:
    """Starts nothing, and remembers what should have been."""

    def __init__(self) -> None:
        self.started: list[Any] = []

    def start(self, actor_id: str, effect: Any, done: Any) -> None:
        self.started.append(effect.key)


def host_on(store: Any, shelf: Any, every: int = 10, effects: Any = None) -> ActorHost[Any, Any, Any]:
    return ActorHost(
        service="executor",
        aggregate="tally",
        decider=TALLY,
        codec=CODEC,
        store=store,
        clock=FixedClock(),
        ids=CountingIds(),
        effects=effects,
        snapshots=shelf,
        limits=HostLimits(snapshot_every_events=every),
    )


async def raised(host: ActorHost[Any, Any, Any], times: int) -> None:
    for _ in range(times):
        await host.ask("t1", Raise(1))


async def test_a_host_wakes_from_the_snapshot_and_the_tail() -> None:
    store, shelf = WatchedStore(), Shelf()
    await raised(host_on(store, shelf), 25)
    assert shelf.saved == [10, 20]
    store.was_read.clear()
    state, seq = await host_on(store, shelf).read("t1")
    assert (state.total, seq) == (25, 25)
    assert store.was_read == [20, 21, 22, 23, 24, 25]


async def test_what_a_snapshot_does_not_hold_yet_counts_towards_the_next() -> None:
    store, shelf = WatchedStore(), Shelf()
    await raised(host_on(store, shelf), 15)
    await raised(host_on(store, shelf), 5)
    assert shelf.saved == [10, 20]


async def test_a_big_state_is_kept_less_often() -> None:
    shelf = Shelf(every=15)
    await raised(host_on(WatchedStore(), shelf), 40)
    assert shelf.saved == [15, 30]


async def test_effects_that_were_open_in_the_snapshot_are_started_again() -> None:
    store, shelf = WatchedStore(), Shelf()
    first = host_on(store, shelf, every=2, effects=HeldEffects())
    await first.ask("t1", Ask("a"))
    await first.ask("t1", Ask("b"))
    effects = HeldEffects()
    second = host_on(store, shelf, every=2, effects=effects)
    await second.ask("t1", Answer("a", "yes"))
    assert effects.started == ["a", "b"]
    assert second.states()["t1"].answers == {"a": "yes"}


async def test_two_hosts_that_race_over_snapshots_lose_nothing() -> None:
    store, shelf = WatchedStore(), Shelf()
    one, other = host_on(store, shelf, every=3), host_on(store, shelf, every=4)
    for _ in range(20):
        await asyncio.gather(one.ask("t1", Raise(1)), other.ask("t1", Raise(1)))
    assert len(shelf.saved) > 5
    assert (await host_on(store, shelf).read("t1"))[0].total == 40
    assert (await host_on(store, None).read("t1"))[0].total == 40


@pytest.mark.parametrize("at_seq", [7, 30])
async def test_a_snapshot_of_another_log_is_not_believed(at_seq: int) -> None:
    store, shelf = WatchedStore(), Shelf()
    await store.append("other", [b""] * 10, expect=0, msg_id="x", headers={})
    await raised(host_on(store, shelf, every=100), 5)
    shelf.save(SUBJECT, at_seq, Tally(total=1_000))
    host = host_on(store, shelf, every=100)
    assert (await host.ask("t1", Raise(1))).state.total == 6


class FakeBus:
    """As much of the bus as snapshots need: one message, or a refusal."""

    def __init__(self) -> None:
        self.found: Recorded | None = None
        self.refusal: Rejected | None = None
        self.stored: list[bytes] = []

    def store(self, subject: str, data: bytes, **rest: Any) -> "asyncio.Future[Stored]":
        outcome: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        if self.refusal is not None:
            outcome.set_exception(self.refusal)
        else:
            self.stored.append(data)
            self.found = Recorded(1, subject, data, rest["headers"])
            outcome.set_result(Stored(1, False))
        return outcome

    async def last_stored(self, stream: str, subject: str) -> Recorded | None:
        if self.refusal is not None:
            raise self.refusal
        return self.found


def on(bus: FakeBus, lines: list[str], **options: Any) -> JetStreamSnapshots[Tally]:
    chosen: dict[str, Any] = {"format_id": "tally-1", "dump": dump, "restore": restore, "bytes_max": 1_000, **options}
    return JetStreamSnapshots(cast(Bus, bus), **chosen, log=lines.append)


@pytest.mark.parametrize(("commit_at", "total"), [("10:00:02", 5), ("10:00:00", 8), ("10:00:01.5", 8), ("", 8)])
async def test_a_snapshot_that_is_older_than_its_commit_is_of_another_log(commit_at: str, total: int) -> None:
    """A log that was put back from a copy and grew again has another commit at the same place."""
    store, shelf = MemoryEventStore(), Shelf()
    stamp = {STORED_AT: f"2026-11-29T{commit_at}Z"} if commit_at else {}
    commit = Commit(at="2026-11-29T10:00:00.000Z", by="", cause="c", corr="", events=[Raised(5)])
    seq = await store.append(SUBJECT, [CODEC.encode(commit)], expect=0, msg_id="m", headers=stamp)
    shelf.save(SUBJECT, seq, Tally(total=8))
    shelf.stored_at = "2026-11-29T10:00:00.5Z"
    folded = await Folding(TALLY, CODEC, store, shelf).fold("t1", SUBJECT)
    assert (folded.state.total, folded.seq) == (total, seq)


async def test_what_is_saved_is_loaded() -> None:
    lines: list[str] = []
    snapshots = on(FakeBus(), lines)
    assert await snapshots.load(SUBJECT) is None
    snapshots.save(SUBJECT, 7, Tally(total=3))
    assert await snapshots.load(SUBJECT) == Kept(Tally(total=3), 7)
    assert lines == []


GOOD = {HEADER_FORMAT: "tally-1", HEADER_AT_SEQ: "7"}


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"\xc1 no msgpack", GOOD),
        (b"", GOOD),
        (dump(Tally())[:-1], GOOD),
        (dump(Tally()), {**GOOD, HEADER_FORMAT: "tally-2"}),
        (dump(Tally()), {HEADER_AT_SEQ: "7"}),
        (dump(Tally()), {HEADER_FORMAT: "tally-1"}),
        (dump(Tally()), {**GOOD, HEADER_AT_SEQ: "seven"}),
        (dump(Tally()), {**GOOD, HEADER_AT_SEQ: "0"}),
    ],
)
async def test_what_cannot_be_read_is_ignored_with_a_line(data: bytes, headers: dict[str, str]) -> None:
    bus, lines = FakeBus(), list[str]()
    bus.found = Recorded(1, "s", data, headers)
    snapshots = on(bus, lines)
    assert await snapshots.load(SUBJECT) is None
    assert len(lines) == 1
    assert SUBJECT in lines[0]
    store = WatchedStore()
    await raised(host_on(store, Shelf()), 5)
    assert (await host_on(store, snapshots).read("t1"))[0].total == 5


async def test_a_broker_without_snapshots_costs_a_line() -> None:
    bus, lines = FakeBus(), list[str]()
    bus.refusal = Rejected("jetstream_unavailable")
    snapshots = on(bus, lines)
    assert await snapshots.load(SUBJECT) is None
    snapshots.save(SUBJECT, 7, Tally())
    await eventually(lambda: len(lines) == 2)


async def test_a_state_that_cannot_be_dumped_breaks_no_run() -> None:
    def broken(_: Tally) -> bytes:
        raise OverflowError("too big a number")

    lines: list[str] = []
    host = host_on(WatchedStore(), on(FakeBus(), lines, dump=broken), every=2)
    await raised(host, 4)
    assert host.states()["t1"].total == 4
    assert len(lines) == 2


async def test_a_state_that_is_too_large_is_encoded_once() -> None:
    dumps: list[int] = []

    def counted(state: Tally) -> bytes:
        dumps.append(state.total)
        return b"x" * 1_001

    bus, lines = FakeBus(), list[str]()
    await raised(host_on(WatchedStore(), on(bus, lines, dump=counted), every=2), 8)
    assert (dumps, bus.stored, len(lines)) == ([2], [], 1)
