"""One suite for every event store: the memory twin and JetStream obey the same laws."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import pytest

from contracts.codec import CommitCodec
from contracts.run import RunEvent
from contracts.streams import EVENTS_EXECUTOR
from contracts.subjects import events
from services.runtime import nats_client, provision
from services.runtime.bus import Bus
from services.runtime.event_store import Conflict, EventStore
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.memory import MemoryEventStore

A, B = events("executor", "run", "a"), events("executor", "run", "b")


class Smuggling(Protocol):
    """Puts a message into the store's stream that none of its writers wrote; its sequence."""

    async def __call__(self, subject: str, text: str, headers: Mapping[str, str] = {}) -> int: ...


class Ground(NamedTuple):
    """A store, and the way to smuggle something into it."""

    store: EventStore
    smuggle: Smuggling


@pytest.fixture
def store(ground: Ground) -> EventStore:
    return ground.store


@pytest.fixture
def smuggle(ground: Ground) -> Smuggling:
    return ground.smuggle


@pytest.fixture(params=["memory", "jetstream", "jetstream-relaxed"])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    if request.param == "memory":
        memory = MemoryEventStore()

        async def smuggle_here(subject: str, text: str, headers: Mapping[str, str] = {}) -> int:
            return memory.smuggle(subject)

        yield Ground(memory, smuggle_here)
        return
    start: Callable[..., Any] = request.getfixturevalue("start_nats_server")
    relaxed = request.param.endswith("relaxed")
    server = start(sync_interval="1s" if relaxed else "always")
    bus = Bus(await nats_client.connect(server.url, name="conformance"), sync="1s" if relaxed else "always")
    await bus.start()
    await provision.apply(bus)

    async def smuggle_there(subject: str, text: str, headers: Mapping[str, str] = {}) -> int:
        answer = await bus.client.request(subject, text.encode(), headers=dict(headers) or None)
        return int(json.loads(answer.data)["seq"])

    yield Ground(JetStreamEventStore(bus, EVENTS_EXECUTOR), smuggle_there)
    await bus.close()


async def append(store: EventStore, subject: str, text: str, expect: int, msg_id: str | None = None) -> int:
    return await store.append(subject, [text.encode()], expect=expect, msg_id=msg_id or f"{subject}-{text}", headers={})


async def texts(store: EventStore, subject: str, after: int = 0) -> list[str]:
    return [record.data.decode() async for record in store.read(subject, after)]


async def test_reads_back_in_order_what_was_appended(store: EventStore) -> None:
    first = await append(store, A, "one", 0)
    await append(store, B, "other", 0)
    second = await append(store, A, "two", first)
    assert second > first
    assert await texts(store, A) == ["one", "two"]
    assert await texts(store, A, first) == ["two"]
    assert await texts(store, events("executor", "run", "none")) == []


async def test_knows_the_newest_sequence_of_a_subject(store: EventStore) -> None:
    assert await store.newest(A) == 0
    first = await append(store, A, "one", 0)
    await append(store, B, "other", 0)
    assert await store.newest(A) == first
    assert await store.newest(events("executor", "run", "none")) == 0


async def test_refuses_an_append_behind_somebody_elses(store: EventStore) -> None:
    first = await append(store, A, "one", 0)
    with pytest.raises(Conflict) as lost:
        await append(store, A, "late", 0)
    assert lost.value.last_seq == first
    assert await texts(store, A) == ["one"]


async def test_the_same_append_again_is_the_same_append(store: EventStore) -> None:
    first = await append(store, A, "one", 0, "m1")
    second = await append(store, A, "two", first, "m2")
    assert await append(store, A, "one", 0, "m1") == first
    assert await append(store, A, "two", first, "m2") == second
    assert await texts(store, A) == ["one", "two"]


async def test_parts_are_stored_together_and_in_order(store: EventStore) -> None:
    last = await store.append(A, [b"1", b"2", b"3"], expect=0, msg_id="parts", headers={})
    assert await texts(store, A) == ["1", "2", "3"]
    assert await store.append(A, [b"1", b"2", b"3"], expect=0, msg_id="parts", headers={}) == last
    with pytest.raises(Conflict):
        await store.append(A, [b"4", b"5"], expect=0, msg_id="late", headers={})
    assert await append(store, A, "4", last) == last + 1


async def test_of_many_racing_writers_one_wins_each_round(store: EventStore) -> None:
    expect = 0
    for round_no in range(5):
        outcomes = await asyncio.gather(
            *(append(store, A, f"{round_no}-{writer}", expect) for writer in range(30)), return_exceptions=True
        )
        won = [outcome for outcome in outcomes if isinstance(outcome, int)]
        assert len(won) == 1
        assert all(isinstance(outcome, int | Conflict) for outcome in outcomes)
        expect = won[0]
    assert len(await texts(store, A)) == 5


async def test_many_aggregates_at_once_keep_their_own_order(store: EventStore) -> None:
    async def story(name: str) -> None:
        expect = 0
        for number in range(5):
            expect = await append(store, events("executor", "run", name), str(number), expect)

    names = [f"run-{number}" for number in range(60)]
    await asyncio.gather(*map(story, names))
    for name in names:
        assert await texts(store, events("executor", "run", name)) == ["0", "1", "2", "3", "4"]


async def test_one_conflict_in_a_crowd_hurts_nobody_else(store: EventStore) -> None:
    await append(store, A, "mine", 0)
    outcomes = await asyncio.gather(
        append(store, A, "late", 0),
        *(append(store, events("executor", "run", f"c{number}"), "x", 0) for number in range(40)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], Conflict)
    assert all(isinstance(outcome, int) for outcome in outcomes[1:])


async def test_finds_subjects_and_their_newest_messages(store: EventStore) -> None:
    first = await append(store, A, "one", 0)
    await append(store, A, "two", first)
    await append(store, B, "b", 0)
    assert await store.subjects(events("executor", "run", "*")) == {A: 2, B: 1}
    newest = await store.last(A)
    assert newest is not None
    assert newest.data == b"two"
    assert await store.last(events("executor", "run", "none")) is None
    found = await store.last_of_many([A, B, events("executor", "run", "none")])
    assert {subject: record.data for subject, record in found.items()} == {A: b"two", B: b"b"}


async def test_a_smuggled_message_keeps_its_place_and_says_nothing(store: EventStore, smuggle: Smuggling) -> None:
    first = await append(store, A, "one", 0)
    lie = await smuggle(A, "a lie")
    second = await append(store, A, "two", lie)
    read = [record async for record in store.read(A)]
    assert [(record.seq, record.forged) for record in read] == [(first, False), (lie, True), (second, False)]
    codec: CommitCodec[RunEvent] = CommitCodec(RunEvent)
    assert codec.decode(read[1].data).events == []
    assert not [value for value in read[1].headers.values() if value]


async def test_who_does_not_know_of_smuggled_messages_appends_behind_them(
    store: EventStore, smuggle: Smuggling
) -> None:
    """They are nobody's decision, so they make nobody's decision old."""
    await smuggle(A, "before everything")
    first = await append(store, A, "one", 0)
    for number in range(3):
        await smuggle(A, f"a lie {number}")
    second = await append(store, A, "two", first)
    with pytest.raises(Conflict) as lost:
        await append(store, A, "late", first)
    assert lost.value.last_seq == second
    parts = await store.append(A, [b"3", b"4"], expect=second, msg_id="parts", headers={})
    await smuggle(A, "behind parts")
    assert await store.append(A, [b"3", b"4"], expect=second, msg_id="parts", headers={}) == parts
    assert [text for text in await texts(store, A) if "at" not in text] == ["one", "two", "3", "4"]


async def test_the_newest_message_is_the_newest_that_was_not_smuggled_in(store: EventStore, smuggle: Smuggling) -> None:
    first = await append(store, A, "one", 0)
    for number in range(200):
        await smuggle(A, f"a lie {number}")
        await smuggle(B, f"a lie {number}")
    last = await store.last(A)
    assert last is not None
    assert (last.seq, last.data) == (first, b"one")
    assert await store.last(B) is None
    assert {subject: record.data for subject, record in (await store.last_of_many([A, B])).items()} == {A: b"one"}
    assert await store.newest(A) > first


async def test_a_smuggled_message_with_the_id_of_the_next_append_does_not_swallow_it(
    store: EventStore, smuggle: Smuggling
) -> None:
    """Ids are counted, so whoever reads the log knows the next one."""
    first = await append(store, A, "one", 0, "m1")
    await smuggle(A, "a lie", {"Nats-Msg-Id": "m2"})
    second = await append(store, A, "two", first, "m2")
    await smuggle(A, "a lie", {"Nats-Msg-Id": "m3"})
    await smuggle(B, "a lie", {"Nats-Msg-Id": "m3.1"})
    third = await store.append(A, [b"3", b"4"], expect=second, msg_id="m3", headers={})
    await smuggle(B, "a lie", {"Nats-Msg-Id": "m4"})
    fourth = await append(store, A, "five", third, "m4")
    assert await append(store, A, "five", third, "m4") == fourth
    for number in range(0, 40, 10):
        await smuggle(B, "a lie", {"Nats-Msg-Id": f"c{number}"})
    assert [text for text in await texts(store, A) if "at" not in text] == ["one", "two", "3", "4", "five"]
    outcomes = await asyncio.gather(
        *(append(store, events("executor", "run", f"c{number}"), "x", 0, f"c{number}") for number in range(40))
    )
    assert len(set(outcomes)) == 40
