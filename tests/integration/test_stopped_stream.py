"""A broker that has stopped writing a stream: how it is told from one that is slow, and how soon it is said.

A nats-server whose disk was full answers every question and acknowledges nothing; that is played here, on a server
without JetStream, by somebody who answers `STREAM.INFO` and hears the writes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from contracts import streams, subjects
from contracts.errors import Rejected
from services.runtime import nats_client
from services.runtime.bus import Bus, Message
from services.runtime.publisher import Write
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

SOON_S = 8.0
SUBJECT = subjects.llm_response("r1", "n1")


class Stream:
    """What answers for one stream: `last_seq` as told, an acknowledgement only when it `stores`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.last_seq = 7
        self.grows = self.stores = self.calls_incomplete = False
        self.writes = 0

    def info(self, message: Message) -> None:
        """STREAM.INFO."""
        self.last_seq += self.grows
        self._bus.publish(message.reply, msgspec.json.encode({"state": {"last_seq": self.last_seq}}))

    def write(self, message: Message) -> None:
        """A message for the stream."""
        self.writes += 1
        if self.stores:
            self.last_seq += 1
            self._bus.publish(message.reply, msgspec.json.encode({"stream": "x", "seq": self.last_seq}))
        elif self.calls_incomplete and message.reply:
            refusal = {"code": 400, "err_code": 10176, "description": "atomic publish batch is incomplete"}
            self._bus.publish(message.reply, msgspec.json.encode({"error": refusal}))


@pytest.fixture
async def broker(start_nats_server: Callable[..., NatsServer]) -> AsyncIterator[tuple[Bus, Stream]]:
    url = start_nats_server(jetstream=False).url
    there = Bus(await nats_client.connect(url, name="stream"))
    bus = Bus(await nats_client.connect(url, name="test"))
    for one in (there, bus):
        await one.start()
    stream = Stream(there)
    await there.subscribe(f"$JS.API.STREAM.INFO.{streams.LLM_RESPONSES}", stream.info)
    await there.subscribe(SUBJECT, stream.write)
    await there.flush()
    yield bus, stream
    await bus.close()
    await there.close()


def store(bus: Bus, msg_id: str) -> "asyncio.Future[object]":
    return bus.store(SUBJECT, b"{}", stream=streams.LLM_RESPONSES, msg_id=msg_id)  # type: ignore[return-value]


async def test_a_stream_that_stands_still_is_full_within_seconds_and_at_once_the_next_time(broker) -> None:
    bus, stream = broker
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(Rejected) as refused:
        await store(bus, "a")
    assert refused.value.code == "storage_full"
    assert loop.time() - began_s < SOON_S
    assert stream.writes > 1, "a message may get lost: one silence is no proof"
    assert bus.stopped == [streams.LLM_RESPONSES]
    began_s = loop.time()
    with pytest.raises(Rejected):
        await store(bus, "b")
    assert loop.time() - began_s < SOON_S / 2


async def test_a_stream_that_calls_every_batch_incomplete_and_stands_still_is_full(broker) -> None:
    bus, stream = broker
    stream.calls_incomplete = True
    began_s = asyncio.get_running_loop().time()
    write = Write(SUBJECT, (b"{}", b"{}"), "a", None, {})
    bus.writer(streams.LLM_RESPONSES).put(write)
    with pytest.raises(Rejected) as refused:
        await write.future
    assert refused.value.code == "storage_full"
    assert asyncio.get_running_loop().time() - began_s < SOON_S
    assert bus.stopped == [streams.LLM_RESPONSES]


async def test_it_is_well_again_with_the_first_acknowledgement_or_a_new_broker(broker) -> None:
    bus, stream = broker
    with pytest.raises(Rejected):
        await store(bus, "a")
    bus.reconnected()
    assert not bus.stopped
    with pytest.raises(Rejected):
        await store(bus, "a")
    stream.stores = True
    await store(bus, "a")
    assert not bus.stopped
    assert not bus.stopped_now(streams.LLM_RESPONSES)


async def test_a_stream_that_grows_is_only_slow(broker) -> None:
    bus, stream = broker
    stream.grows = True
    stored = store(bus, "a")
    await eventually(lambda: stream.writes > 3, timeout_s=SOON_S * 2)
    assert not stored.done()
    stream.stores = True
    await stored
