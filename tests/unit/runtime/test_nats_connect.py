"""Connecting: a deadline holds whatever the client library makes of a cancellation."""

import asyncio
from typing import Any

import pytest

from contracts.errors import Rejected
from services.runtime import nats_client


async def swallows(self: nats_client.ToughClient, *_: Any, **__: Any) -> None:
    """As nats-py does when it is cancelled in the middle of closing a connection: it tries again, for ever."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


async def test_a_client_that_swallows_a_cancellation_does_not_hang(monkeypatch):
    monkeypatch.setattr(nats_client.ToughClient, "connect", swallows)
    monkeypatch.setattr(nats_client, "CONNECT_TRY_S", 0.05)
    async with asyncio.timeout(5):
        with pytest.raises(Rejected, match="nats_unavailable"):
            await nats_client.connect("nats://127.0.0.1:4222", name="t", deadline_s=0.1)


async def test_neither_does_one_whose_caller_has_enough(monkeypatch):
    monkeypatch.setattr(nats_client.ToughClient, "connect", swallows)
    connecting = asyncio.create_task(nats_client.connect("nats://127.0.0.1:4222", name="t"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    connecting.cancel()
    done, _ = await asyncio.wait([connecting], timeout=5)
    assert done
    assert connecting.cancelled()
