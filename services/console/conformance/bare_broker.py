"""A broker of the command's own, with little room or without JetStream, and what becomes of who uses it."""

import asyncio
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from contracts.errors import Rejected
from contracts.rights import BOOTSTRAP, OPERATOR, inbox
from contracts.streams import EVENTS_EXECUTOR, EVENTS_PLANNER, STREAMS
from contracts.subjects import events
from services.console.conformance.scenario import Scenario, Sight
from services.console.conformance.scratch import until
from services.console.connection import CONNECT_S, bus_at
from services.console.home import Home
from services.console.supervision.broker import EmbeddedBroker, greeting, prepare, url_of
from services.console.supervision.child import Child
from services.console.supervision.plan import broker_spec
from services.runtime import nats_client, nkeys, provision
from services.runtime.bus import Bus
from services.runtime.jetstream import JetStreamEventStore

EXECUTOR: Final = "executor"
ROOM: Final = "1MB"
PART_BYTES: Final = 400_000
PARTS_TOO_MANY: Final = 8
Room = Literal["little room", "no JetStream"]
"""What it is short of."""
_JETSTREAM: Final = re.compile(r"^jetstream \{\n(.*?)^\}\n", re.M | re.S)


class BareBroker:
    """It runs, and that is all: no stream is made."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self.url = broker.url

    @asynccontextmanager
    async def bus_of(self, user: str) -> AsyncIterator[Bus]:
        """A bus that speaks as one of the services, or as bootstrap."""
        key = nkeys.load(self._broker.keys, user)
        client = await nats_client.connect(
            self.url, name=f"htdag-{user}", key=key, inbox=inbox(user), deadline_s=CONNECT_S
        )
        bus = Bus(client)
        await bus.start()
        try:
            yield bus
        finally:
            await bus.close()

    async def enter(self, url: str) -> None:
        """Connect as the console does, and leave again. Raises nats_denied or nats_unavailable."""
        async with bus_at(url):
            return

    @property
    def stranger_url(self) -> str:
        """Its address with a password that is wrong."""
        return url_of(OPERATOR, "no-such-password", self._broker.port)


@asynccontextmanager
async def bare_broker(room: Room) -> AsyncIterator[BareBroker]:
    """Start one in a folder that is removed, and kill it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="htdag-conformance-"))
    home = Home(folder)
    try:
        home.prepare()
        broker = prepare(home, port=0, sync="1s")
        text = broker.conf.read_text(encoding="utf-8")
        jetstream = rf"jetstream {{\n  max_file_store: {ROOM}\n\1}}\n" if room == "little room" else ""
        broker.conf.write_text(_JETSTREAM.sub(jetstream, text), encoding="utf-8")
        child = Child(broker_spec(home, broker), lambda: None)
        async with child_running(child):
            await until(lambda: _answers(broker.url))
            yield BareBroker(broker)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def child_running(child: Child) -> AsyncIterator[None]:
    """Keep a child process for as long as the block runs, and wait for its end."""
    running = asyncio.create_task(child.run(), name=child.spec.name)
    try:
        yield
    finally:
        await child.stop(grace_s=0.0)
        await asyncio.wait([running])


async def _answers(url: str) -> bool:
    try:
        await greeting(url, timeout_s=1.0)
    except Rejected:
        return False
    return True


async def _fill(store: JetStreamEventStore, subject: str) -> None:
    """Append what no compression makes smaller, until there is no room for it."""
    last = 0
    for number in range(PARTS_TOO_MANY):
        parts = (secrets.token_bytes(PART_BYTES),)
        last = await store.append(subject, parts, expect=last, msg_id=f"conformance-{number}", headers={})


async def _streams(broker: BareBroker, sight: Sight) -> None:
    subject = events(EXECUTOR, "run", "conformance")
    async with broker.bus_of(EXECUTOR) as executor, broker.bus_of(BOOTSTRAP) as bootstrap:
        store = JetStreamEventStore(executor, EVENTS_EXECUTOR)
        await sight.refused("stream_missing", store.newest(subject), f"a look into {EVENTS_EXECUTOR}")
        other = {"name": EVENTS_PLANNER, "subjects": ["conformance.other"], "retention": "workqueue"}
        await bootstrap.api(f"STREAM.CREATE.{EVENTS_PLANNER}", other)
        await sight.refused("stream_differs", provision.apply(bootstrap), f"making {EVENTS_PLANNER}")
        spec = next(spec for spec in STREAMS if spec.name == EVENTS_EXECUTOR)
        await bootstrap.api(f"STREAM.CREATE.{spec.name}", {"name": spec.name, **spec.config})
        await sight.refused("storage_full", _fill(store, subject), f"appends beyond {ROOM}")


async def _credentials(broker: BareBroker, sight: Sight) -> None:
    await sight.refused("nats_denied", broker.enter(broker.stranger_url), "a connection with a wrong password")


async def _without_jetstream(broker: BareBroker, sight: Sight) -> None:
    async with broker.bus_of(BOOTSTRAP) as bus:
        await sight.refused("jetstream_unavailable", provision.apply(bus), "making streams")


FULL: Final = (
    Scenario(("stream_missing", "stream_differs", "storage_full"), _streams),
    Scenario(("nats_denied",), _credentials),
)
WITHOUT_JETSTREAM: Final = (Scenario(("jetstream_unavailable",), _without_jetstream),)
