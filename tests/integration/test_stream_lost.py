"""A stream that a broker has lost while the services went on: said by its name, and there again without a restart."""

import asyncio

import pytest

from contracts import streams, subjects
from contracts.errors import Rejected
from contracts.rights import BOOTSTRAP
from services.runtime import nats_client, provision
from services.runtime.bus import Bus
from services.runtime.own_streams import OwnStreams
from tests.support.eventually import eventually
from tests.support.guarded import Guarded
from tests.support.nats_server import NatsServer


class Log:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, event: str, **_: object) -> None:
        self.said.append(event)

    warning = error = info


async def connected(server: NatsServer) -> Bus:
    bus = Bus(await nats_client.connect(server.url, name="test"))
    await bus.start()
    return bus


async def lose(bus: Bus, stream: str) -> None:
    await bus.api(f"STREAM.DELETE.{stream}")


async def test_nothing_is_lost_with_a_broker_that_is_killed(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    await provision.apply(bus)
    subject = subjects.conversation("s1")
    await bus.store(subject, b"turn", stream=streams.CONVERSATIONS, msg_id="t1")
    nats_server.kill()
    await asyncio.to_thread(nats_server.start)
    await eventually(lambda: bus.connected, timeout_s=20)
    assert {change.action for change in await provision.apply(bus, dry=True)} == {"same"}
    await bus.store(subject, b"next", stream=streams.CONVERSATIONS, msg_id="t2")
    await bus.close()


def test_no_stream_lives_in_the_memory_of_the_broker() -> None:
    assert [spec.name for spec in streams.STREAMS if spec.config["storage"] != "file"] == []
    assert [one.name for one in streams.CONSUMERS if one.config.get("mem_storage")] == []


async def test_a_missing_stream_is_not_a_missing_broker(nats_server: NatsServer) -> None:
    told: list[str] = []
    bus = Bus(await nats_client.connect(nats_server.url, name="test"), on_absent=told.append)
    await bus.start()
    with pytest.raises(Rejected) as read:
        await bus.last(streams.CONVERSATIONS, subjects.conversation("s1"))
    with pytest.raises(Rejected) as many:
        _ = [one async for one in bus.history(streams.EVENTS_EXECUTOR, ">")]
    with pytest.raises(Rejected) as written:
        await bus.store(subjects.conversation("s1"), b"x", stream=streams.CONVERSATIONS, msg_id="t1")
    with pytest.raises(Rejected) as followed:
        await bus.follow(streams.EVENTS_PLANNER, ">", lambda _: None)
    with pytest.raises(Rejected) as asked:
        await bus.newest(streams.EVENTS_PLANNER, "x")
    refusals = [one.value for one in (read, many, written, followed, asked)]
    assert {one.code for one in refusals} == {"stream_missing"}
    assert read.value.detail["stream"] == streams.CONVERSATIONS
    assert "bus apply" in read.value.kind.hint
    assert set(told) == {streams.CONVERSATIONS, streams.EVENTS_EXECUTOR, streams.EVENTS_PLANNER}
    assert not bus.stopped
    await bus.close()


async def test_whoever_may_not_make_it_says_which_is_missing_until_it_is_there(guarded: Guarded) -> None:
    keeper = await guarded.bus(BOOTSTRAP)
    identity = await guarded.bus("identity")
    await provision.apply(keeper)
    log = Log()
    own = OwnStreams("identity", makes=False, log=log)
    await own.at_start(identity)
    assert own.reason is None
    await lose(keeper, streams.CONVERSATIONS)
    looking = asyncio.create_task(own.look_again(identity))
    await eventually(lambda: own.reason is not None)
    assert own.reason == f"there is no {streams.CONVERSATIONS}: `htdag bus apply` makes it"
    await own.look_again(identity)  # there is one look under way: no second one beside it
    assert not looking.done()
    await provision.apply(keeper)
    await looking
    assert own.reason is None


async def test_whoever_may_make_it_makes_it_again(nats_server: NatsServer) -> None:
    bus, log = await connected(nats_server), Log()
    own = OwnStreams("identity", makes=True, log=log)
    await own.at_start(bus)
    await lose(bus, streams.CONVERSATIONS)
    await own.look_again(bus)
    assert own.reason is None
    assert not await provision.missing(bus, "identity")
    assert log.said.count("streams_applied") == 2
    await bus.close()
