"""A broker of the command's own, with little room or without JetStream."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from contracts.errors import Rejected
from contracts.rights import OPERATOR
from services.console.conformance.errors.folder import thrown_away
from services.console.conformance.errors.scenario import until
from services.console.conformance.errors.service_bus import bus_as
from services.console.connection import bus_at
from services.console.home import Home
from services.console.supervision.broker import EmbeddedBroker, greeting, prepare, url_of
from services.console.supervision.child import Child
from services.console.supervision.plan import broker_spec
from services.runtime.bus import Bus

ROOM: Final = "1MB"
START_S: Final = 20.0
"""Longer than a broker takes to answer on a busy machine."""
Room = Literal["little room", "no JetStream"]
"""What it is short of."""
_JETSTREAM: Final = re.compile(r"^jetstream \{\n(.*?)^\}\n", re.M | re.S)


class BareBroker:
    """It runs, and that is all: no stream is made."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self.url = broker.url

    def as_user(self, user: str) -> AbstractAsyncContextManager[Bus]:
        """A bus that speaks as one of the services, or as bootstrap."""
        return bus_as(user, self._broker.keys, self.url)

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
    """Start one in a folder that is removed, and kill it at the end. Raises TimeoutError when it does not answer."""
    with thrown_away() as folder:
        home = Home(Path(folder))
        home.prepare()
        broker = prepare(home, port=0, sync="1s")
        text = broker.conf.read_text(encoding="utf-8")
        jetstream = rf"jetstream {{\n  max_file_store: {ROOM}\n\1}}\n" if room == "little room" else ""
        broker.conf.write_text(_JETSTREAM.sub(jetstream, text), encoding="utf-8")
        child = Child(broker_spec(home, broker), lambda: None)
        async with child_running(child):
            async with asyncio.timeout(START_S):
                await until(lambda: _answers(broker.url))
            yield BareBroker(broker)


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
