"""A bus to a broker, as a service has one, closed at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime import nats_client
from services.runtime.bus import Bus


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[Bus]:
    """The streams are whoever's who runs there: none are made."""
    bus = Bus(await nats_client.connect(url, name="test"))
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()
