"""Workers ask each other before a call that may be under way already."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from contracts.llm import LlmInput, LlmRequest
from services.llm_worker.claims import SETTLE_S, Claims
from services.llm_worker.config import ModelConfig
from services.llm_worker.flight import Flight, Flights, Phase, Waiter
from services.llm_worker.journal import Key
from services.llm_worker.models import Resolved
from services.runtime import nats_client
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew


def flight(phase: Phase, *, delivered: int = 2, seq: int = 1) -> Flight:
    delivery: Any = SimpleNamespace(seq=seq, delivered=delivered)
    waiter, resolved = Waiter(delivery, "", "", 0), Resolved("m", "m", ModelConfig("mock"))
    call = Flight(Key("r", "n", "c"), LlmRequest(LlmInput([])), resolved, waiter)
    call.phase = phase
    return call


async def started(bus: Bus, worker_id: str, holds: Flight | None = None) -> Claims:
    flights = Flights()
    if holds is not None:
        flights.add(holds)
    claims = Claims(bus=bus, flights=flights, worker_id=worker_id, log=structlog.get_logger())
    await claims.start()
    return claims


@pytest.mark.parametrize(
    ("other", "phase", "elsewhere"),
    [
        ("w1", "calling", True),
        ("w9", "calling", True),
        ("w9", "answered", True),
        # Both are about to begin: exactly one of them may.
        ("w1", "waiting", True),
        ("w9", "waiting", False),
    ],
)
async def test_who_has_the_call_says_so(bus, other, phase, elsewhere):
    await started(bus, other, flight(phase))
    asker = await started(bus, "w5", flight("waiting"))
    assert await asker.elsewhere(flight("waiting")) is elsewhere


async def test_a_worker_that_comes_back_late_is_waited_for(bus, nats_server):
    asker = await started(bus, "w5")
    late = Bus(await nats_client.connect(nats_server.url, name="late"))
    await late.start()
    loop = asyncio.get_running_loop()
    asking = asyncio.create_task(asker.elsewhere(flight("waiting")))
    back_s = loop.time() + SETTLE_S / 2
    await eventually(lambda: loop.time() > back_s)
    await started(late, "w9", flight("calling"))
    assert await asking is True
    await late.close()


async def test_what_came_first_to_us_and_after_we_connected_is_not_asked_for(bus):
    claims = await started(bus, "w5")
    fresh, again = flight("waiting", delivered=1).waiters[0].delivery, flight("waiting").waiters[0].delivery
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert claims.in_doubt(fresh)
    assert not await claims.elsewhere(flight("waiting", delivered=1))
    assert loop.time() - began_s < 0.2
    # Given back by ourselves each time: nobody else ever had it.
    assert claims.in_doubt(again)
    claims.gave_back(again)
    assert not await claims.elsewhere(flight("waiting"))
    assert loop.time() - began_s < 0.4


async def test_the_first_request_after_a_start_is_called_at_once(bus):
    crew = Crew(bus)
    crew.gate.open.set()
    await crew.worker.start()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await crew.ask("c")
    await eventually(lambda: crew.answer("c"))
    assert loop.time() - began_s < SETTLE_S / 2
