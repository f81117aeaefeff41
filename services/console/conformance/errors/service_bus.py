"""A bus that speaks as one of the services, as who has taken it over would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from contracts.rights import inbox
from services.console.connection import CONNECT_S
from services.runtime import nats_client, nkeys
from services.runtime.bus import Bus


@asynccontextmanager
async def bus_as(user: str, keys: Path, url: str) -> AsyncIterator[Bus]:
    """Connect with the key of `user` in the folder `keys`. Raises Rejected: nats_denied, nats_unavailable."""
    key = nkeys.load(keys, user)
    client = await nats_client.connect(url, name=f"htdag-{user}", key=key, inbox=inbox(user), deadline_s=CONNECT_S)
    bus = Bus(client)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()
