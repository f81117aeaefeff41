"""A responder of the command's own: it says the same to everybody who asks on one subject."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.runtime.bus import Bus


@asynccontextmanager
async def serving(bus: "Bus", subject: str, said: bytes) -> AsyncIterator[None]:
    """Answer there for as long as the block runs."""
    subscription = await bus.subscribe(subject, lambda asked: bus.publish(asked.reply, said))
    await bus.flush()
    try:
        yield
    finally:
        await subscription.unsubscribe()
