"""What a provider's server says, as the JSON that came.

The SDKs mend what they read: `true` and `"1"` become the count 1, and half of an object becomes an object. So they
only carry: each event is read here, strictly, into what this system needs of it.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from services.llm_worker.providers.protocol import Call

T = TypeVar("T")


def once(call: Call) -> dict[str, str]:
    """The header by which a provider that honours it bills a call once, also when another worker takes it over."""
    return {"Idempotency-Key": call.request.corr_id}


def fault_of(key: str, name: str) -> str:
    """Why a call cannot be made with this key, which stands under `name`; empty when it can."""
    if not key:
        return f"{name} is not set"
    return "" if key.isascii() and key.isprintable() else f"{name} holds characters that no header can carry"


@asynccontextmanager
async def heard(asked: Any, stream: Any, shape: type[T]) -> AsyncGenerator[AsyncIterator[T], None]:
    """The events of a call that an SDK makes `with_streaming_response`; `stream` is that SDK's class of streams.

    Reading one raises what the SDK raises, or a ValueError when the event has another shape.
    """
    async with asked as response:
        said = await response.parse(to=stream[object])
        try:
            yield _read(said, shape)
        finally:
            await said.close()


async def _read(said: Any, shape: type[T]) -> AsyncIterator[T]:
    async for event in said:
        yield msgspec.convert(event, shape)
