"""Connecting: a deadline holds whatever the client library makes of a cancellation."""

import asyncio
import contextlib
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


@pytest.fixture
def closed(monkeypatch) -> asyncio.Event:
    """Set as soon as a client is closed."""
    event = asyncio.Event()

    async def close(self: nats_client.ToughClient) -> None:
        event.set()

    monkeypatch.setattr(nats_client.ToughClient, "close", close)
    return event


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


async def test_who_is_cancelled_in_the_moment_it_is_connected_leaves_no_connection(monkeypatch, closed):
    async def succeeds(self: nats_client.ToughClient, *_: Any, **__: Any) -> None:
        connecting.cancel()

    monkeypatch.setattr(nats_client.ToughClient, "connect", succeeds)
    connecting = asyncio.create_task(nats_client.connect("nats://127.0.0.1:4222", name="t"))
    done, _ = await asyncio.wait([connecting], timeout=5)
    assert done
    assert connecting.cancelled()
    assert closed.is_set()


async def test_neither_does_who_connects_all_the_same_when_it_is_cancelled(monkeypatch, closed):
    async def insists(self: nats_client.ToughClient, *_: Any, **__: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(nats_client.ToughClient, "connect", insists)
    connecting = asyncio.create_task(nats_client.connect("nats://127.0.0.1:4222", name="t"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    connecting.cancel()
    await asyncio.wait([connecting], timeout=5)
    assert connecting.cancelled()
    assert closed.is_set()
