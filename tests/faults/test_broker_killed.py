"""The broker dies at any moment: every append has one outcome, every pulled message comes, nothing is doubled."""

import asyncio

import pytest

from contracts import streams, subjects
from services.runtime import nats_client, provision
from services.runtime.bus import Bus
from services.runtime.event_store import Conflict
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.pull import Delivery
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer

# A connection that dies in the broker's greeting is left to the garbage collector by nats-py.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
KILLS = 4


async def connected(server: NatsServer, name: str) -> Bus:
    bus = Bus(await nats_client.connect(server.url, name=name))
    await bus.start()
    return bus


async def kill_and_start_again(server: NatsServer) -> None:
    server.kill()
    await asyncio.to_thread(server.start)


async def test_rival_writers_through_killed_brokers_store_each_append_once_and_in_order(
    nats_server: NatsServer,
) -> None:
    first, second = await connected(nats_server, "first"), await connected(nats_server, "second")
    await provision.apply(first)
    subject = subjects.events("executor", "run", "contested")
    stored: dict[str, list[int]] = {"a": [], "b": []}
    stop = asyncio.Event()

    async def write(name: str, bus: Bus) -> None:
        store, last = JetStreamEventStore(bus, streams.EVENTS_EXECUTOR), 0
        while not stop.is_set():
            number = len(stored[name])
            try:
                last = await store.append(
                    subject, [f"{name}{number}".encode()], expect=last, msg_id=f"{name}{number}", headers={}
                )
                stored[name].append(last)
            except Conflict as lost:
                last = lost.last_seq or 0

    writers = [asyncio.create_task(write("a", first)), asyncio.create_task(write("b", second))]
    for _ in range(KILLS):
        before = len(stored["a"]) + len(stored["b"])
        await eventually(lambda before=before: len(stored["a"]) + len(stored["b"]) > before + 20, timeout_s=20)
        await kill_and_start_again(nats_server)
    before = len(stored["a"]) + len(stored["b"])
    await eventually(lambda: len(stored["a"]) + len(stored["b"]) > before, timeout_s=20)
    stop.set()
    await asyncio.gather(*writers)

    log = [record async for record in first.history(streams.EVENTS_EXECUTOR, subject)]
    assert len(log) == len(stored["a"]) + len(stored["b"])
    for name in "ab":
        mine = [int(record.data[1:]) for record in log if record.data[:1].decode() == name]
        assert mine == list(range(len(stored[name])))
    await first.close()
    await second.close()


async def test_group_commits_through_killed_brokers_are_whole(nats_server: NatsServer) -> None:
    bus = await connected(nats_server, "group")
    await provision.apply(bus)
    store = JetStreamEventStore(bus, streams.EVENTS_EXECUTOR)

    async def story(name: str) -> None:
        last = 0
        for number in range(6):
            last = await store.append(
                subjects.events("executor", "run", name),
                [str(number).encode(), b"part"],
                expect=last,
                msg_id=f"{name}-{number}",
                headers={},
            )

    stories = [asyncio.create_task(story(f"r{number}")) for number in range(50)]
    for _ in range(3):
        await asyncio.sleep(0)
        await kill_and_start_again(nats_server)
    await asyncio.gather(*stories)
    for number in range(50):
        log = [r.data async for r in store.read(subjects.events("executor", "run", f"r{number}"))]
        assert log == [item for index in range(6) for item in (str(index).encode(), b"part")]
    await bus.close()


async def test_commands_stored_and_pulled_through_killed_brokers_all_arrive(nats_server: NatsServer) -> None:
    sender, worker = await connected(nats_server, "sender"), await connected(nats_server, "worker")
    await provision.apply(sender)
    seen: set[str] = set()

    def take(delivery: Delivery) -> None:
        seen.add(delivery.data.decode())
        delivery.ack()

    for consumer in streams.CONSUMERS:
        if consumer.stream == streams.COMMANDS:
            await worker.pull(consumer, take, priority=0)
    sent = 0
    for _ in range(3):
        outcomes = [
            sender.store(
                subjects.command("executor", "run", f"r{number}", "start"),
                str(number).encode(),
                stream=streams.COMMANDS,
                msg_id=f"c{number}",
            )
            for number in range(sent, sent + 100)
        ]
        sent += 100
        await kill_and_start_again(nats_server)
        await asyncio.gather(*outcomes)
    await eventually(lambda: len(seen) == sent, timeout_s=30)
    await sender.close()
    await worker.close()


async def test_a_follower_misses_nothing_over_a_killed_broker(nats_server: NatsServer) -> None:
    bus = await connected(nats_server, "follower")
    await provision.apply(bus)
    store, subject = JetStreamEventStore(bus, streams.EVENTS_EXECUTOR), subjects.events("executor", "run", "followed")
    seen: list[bytes] = []
    await bus.follow(streams.EVENTS_EXECUTOR, subject, lambda record: seen.append(record.data))
    last = 0
    for number in range(20):
        if number in (5, 12):
            await kill_and_start_again(nats_server)
        last = await store.append(subject, [str(number).encode()], expect=last, msg_id=f"f{number}", headers={})
    await eventually(lambda: len(seen) == 20, timeout_s=30)
    assert seen == [str(number).encode() for number in range(20)]
    await bus.close()
