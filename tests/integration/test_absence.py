"""Whoever follows something on the bus is told when the broker stays away."""

import asyncio

import pytest

from contracts.errors import Rejected
from services.console import absence
from services.runtime import nats_client
from services.runtime.bus import Bus
from tests.support.eventually import eventually


async def test_who_follows_the_bus_is_told_when_the_broker_stays_away(nats_server, monkeypatch):
    bus = Bus(await nats_client.connect(nats_server.url, name="test"))
    await bus.start()
    monkeypatch.setattr(absence, "AWAY_S", 0.5)
    waiting = asyncio.create_task(absence.while_there(bus, asyncio.Event(), "come back"))
    nats_server.kill()
    nats_server.start()
    await eventually(lambda: bus.connected, timeout_s=20)
    assert not waiting.done(), "a restart is no absence"
    nats_server.kill()
    with pytest.raises(Rejected) as refused:
        await asyncio.wait_for(waiting, 10)
    assert refused.value.code == "nats_unavailable"
    await bus.close()
