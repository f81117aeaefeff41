"""Two versions of the code on one stream of a real broker, at the same time: the old one writes v1, the new one v2.

The new code reads both. The old one reads what it knows: its views skip the rest, its aggregates refuse a log that
somebody newer wrote to, and what is meant for them stays with the broker until newer code takes it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pytest

from contracts.codec import CommitCodec, UnknownType
from contracts.errors import Rejected
from contracts.streams import EVENTS_EXECUTOR
from contracts.subjects import events
from services.runtime import nats_client
from services.runtime.actor import ActorHost
from services.runtime.bus import Bus
from services.runtime.clock import SystemClock
from services.runtime.decider import Decider
from services.runtime.event_store import Recorded
from services.runtime.ids import CountingIds
from services.runtime.jetstream import JetStreamEventStore
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

MOVES = 41
"""An odd number: every door ends open."""


class OpenedV1(msgspec.Struct, frozen=True, tag_field="type", tag="door.opened.v1"):
    width_m: int


class OpenedV2(msgspec.Struct, frozen=True, tag_field="type", tag="door.opened.v2"):
    width_cm: int


class Closed(msgspec.Struct, frozen=True, tag_field="type", tag="door.closed.v1"):
    pass


class Open(msgspec.Struct, frozen=True):
    width: int


class Close(msgspec.Struct, frozen=True):
    pass


@dataclass
class Door:
    """A door as one version sees it: how wide it is open, in the unit of that version, and how often it moved."""

    width: int = 0
    moves: int = 0


def _to_v2(old: dict[str, Any]) -> dict[str, Any]:
    return {"type": "door.opened.v2", "width_cm": old["width_m"] * 100}


OLD: CommitCodec[Any] = CommitCodec(OpenedV1 | Closed)
NEW: CommitCodec[Any] = CommitCodec(OpenedV2 | Closed, {"door.opened.v1": _to_v2})


def evolve(door: Door, event: Any) -> Door:
    door.moves += 1
    match event:
        case OpenedV1(width_m):
            door.width = width_m
        case OpenedV2(width_cm):
            door.width = width_cm
        case Closed():
            door.width = 0
    return door


def decider(opened: type[Any]) -> Decider[Any, Door, Any]:
    """The door of the version that writes `opened`."""
    return Decider(
        initial=lambda _: Door(),
        decide=lambda command, *_: [opened(command.width) if isinstance(command, Open) else Closed()],
        evolve=evolve,
        is_terminal=lambda _: False,
    )


class View:
    """A projection of all doors by one version of the code, up to date with the stream."""

    def __init__(self, codec: CommitCodec[Any]) -> None:
        self.doors: dict[str, Door] = {}
        self.order: list[str] = []
        self._codec = codec

    def take(self, record: Recorded) -> None:
        """One commit; a type that this version does not know is skipped."""
        name = record.subject.rpartition(".")[2]
        self.order.append(name)
        door = self.doors.setdefault(name, Door())
        for event in self._codec.decode(record.data, skip_unknown=True).events:
            evolve(door, event)


class Version(NamedTuple):
    """One version of a service: its own connection, its aggregates, its view."""

    host: ActorHost[Any, Door, Any]
    view: View
    store: JetStreamEventStore


async def version(bus: Bus, opened: type[Any], codec: CommitCodec[Any]) -> Version:
    store, view = JetStreamEventStore(bus, EVENTS_EXECUTOR), View(codec)
    host: ActorHost[Any, Door, Any] = ActorHost(
        service="executor", aggregate="door", decider=decider(opened), codec=codec, store=store, clock=SystemClock(),
        ids=CountingIds(),
    )  # fmt: skip
    await bus.follow(EVENTS_EXECUTOR, events("executor", "door", "*"), view.take, after=0)
    return Version(host, view, store)


@pytest.fixture
async def old(bus: Bus) -> Version:
    """What ran before."""
    return await version(bus, OpenedV1, OLD)


@pytest.fixture
async def new(nats_server: NatsServer, bus: Bus) -> AsyncIterator[Version]:
    """What was started beside it, with a connection of its own."""
    own = Bus(await nats_client.connect(nats_server.url, name="newer"))
    await own.start()
    yield await version(own, OpenedV2, NEW)
    await own.close()


async def move(host: ActorHost[Any, Door, Any], name: str, width: int) -> None:
    """Open and close a door, commit by commit, and leave it open."""
    for count in range(MOVES):
        await host.ask(name, Close() if count % 2 else Open(width))


async def test_a_producer_of_v1_and_a_consumer_of_v2_run_side_by_side(old: Version, new: Version) -> None:
    await asyncio.gather(move(old.host, "by-old", 2), move(new.host, "by-new", 200))
    # The newer code takes over a door whose log the older one began.
    await old.host.ask("by-both", Open(2))
    await new.host.ask("by-both", Close())
    await new.host.ask("by-both", Open(200))
    commits = 2 * MOVES + 3
    await eventually(lambda: len(old.view.order) == len(new.view.order) == commits)
    assert set(new.view.order[: MOVES + MOVES // 2]) == {"by-old", "by-new"}
    assert new.view.doors == {"by-old": Door(200, MOVES), "by-new": Door(200, MOVES), "by-both": Door(200, 3)}
    for name in new.view.doors:
        assert (await new.host.read(name))[0] == new.view.doors[name]
    # The older view has all of its own, and of the others what it knows: that they were closed.
    assert old.view.doors == {"by-old": Door(2, MOVES), "by-new": Door(0, MOVES // 2), "by-both": Door(0, 2)}


async def test_an_older_aggregate_refuses_a_newer_log_and_what_is_meant_for_it_waits_for_newer_code(
    old: Version, new: Version
) -> None:
    await new.host.ask("door", Open(200))
    subject = events("executor", "door", "door")
    newest = await new.store.newest(subject)
    with pytest.raises(Rejected) as refused:
        await old.host.ask("door", Close())
    assert refused.value.code == "poison"
    told: list[BaseException | None] = []
    old.host.deliver("door", Close(), message_id="m1", settled=told.append)
    await eventually(lambda: told)
    # Not acknowledged, and no fault of the message: the mailbox gives it back to the broker for a while.
    assert [type(error) for error in told] == [UnknownType]
    assert await new.store.newest(subject) == newest
    new.host.deliver("door", Close(), message_id="m1", settled=told.append)
    await eventually(lambda: len(told) == 2)
    assert (told[1], (await new.host.read("door"))[0]) == (None, Door(0, 2))
    # The others of the older code work on.
    await old.host.ask("another", Open(3))
    assert ((await old.host.read("another"))[0], (await new.host.read("another"))[0]) == (Door(3, 1), Door(300, 1))
