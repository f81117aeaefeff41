"""A worker is stopped in the middle of its calls and goes on after another one took them over: every cent agrees."""

import asyncio
import json
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contracts import streams, subjects
from contracts.errors import Rejected
from contracts.ledger import LEDGER_ID, LedgerEvent, LlmPaid, LlmReserved, LlmTakenOver
from services.console.home import Home
from services.console.supervision.broker import prepare
from services.runtime import nats_client
from services.runtime.bus import Bus
from services.runtime.clock import SystemClock
from tests.faults.test_chaos_money import module
from tests.support.eventually import eventually

CALLS = 6
BILLED = "billed"


async def ledger_of(chaos: ModuleType, bus: Bus) -> list[LedgerEvent]:
    subject = subjects.events("llm-worker", "ledger", LEDGER_ID)
    return [
        event
        async for record in bus.history(streams.EVENTS_LLM_WORKER, subject)
        for event in chaos.CODEC.decode(record.data).events
    ]


async def up(bus: Bus, count: int) -> None:
    """Wait until so many workers take requests."""
    verb = subjects.rpc("llm-worker", "llm", "workers")

    async def beating() -> bool:
        try:
            seen = await bus.call(verb, {}, timeout_s=1)
        except Rejected:
            return False
        return sum(worker["status"] == "up" for worker in seen) == count

    await eventually(beating, timeout_s=40.0, interval_s=0.2)


async def frozen_and_thawed(chaos: ModuleType, bus: Bus, workers: list[Any]) -> tuple[set[str], dict[str, Any]]:
    """Which calls were taken over from a worker that was only frozen, and all answers."""
    end = time.monotonic() + 50
    names = [f"c{number}" for number in range(CALLS)]
    kind = [model for model, _ in chaos.KINDS].index(BILLED)
    asked = [asyncio.create_task(chaos.ask_until_answered(bus, name, kind, end)) for name in names]

    async def reserved() -> list[LlmReserved]:
        found = [event for event in await ledger_of(chaos, bus) if isinstance(event, LlmReserved)]
        return found if len(found) == CALLS else []

    await eventually(reserved, timeout_s=30.0, interval_s=0.05)
    frozen = workers[0].freeze()

    async def taken_over() -> set[str]:
        return {event.corr_id for event in await ledger_of(chaos, bus) if isinstance(event, LlmTakenOver)}

    try:
        await eventually(taken_over, timeout_s=30.0, interval_s=0.05)
    finally:
        frozen.send_signal(signal.SIGCONT)
    said = await asyncio.gather(*asked)
    return await taken_over(), {name: json.loads(one) for name, one in zip(names, said, strict=True)}


async def play(chaos: ModuleType, home: Home) -> None:
    broker = prepare(home, port=0, sync="1s")
    server = subprocess.Popen([str(broker.program), "-c", str(broker.conf)], stderr=subprocess.DEVNULL)
    workers: list[Any] = []
    provider = socket.create_server(("127.0.0.1", 0))
    try:
        await chaos.streams_made(broker)
        url = f"http://127.0.0.1:{provider.getsockname()[1]}"
        noon_ms = chaos.DAY_MS // 2 - SystemClock().now_ms() % chaos.DAY_MS
        workers += [chaos.Worker(home.root / f"worker-{number}", broker, noon_ms, url) for number in (1, 2)]
        serving = await asyncio.start_server(chaos.drip, sock=provider)
        bus = Bus(await nats_client.connect(broker.operator_url, name="frozen"))
        await bus.start()
        await up(bus, len(workers))
        taken, answers = await frozen_and_thawed(chaos, bus, workers)
        assert await chaos.until_settled(bus, time.monotonic() + 30) == []
        paid = Counter[str]()
        for event in await ledger_of(chaos, bus):
            if isinstance(event, LlmPaid):
                paid[event.corr_id] += event.cost_usd_micros or 0
        assert paid == {name: said["cost_usd_micros"] for name, said in answers.items()}
        assert taken
        await bus.close()
        serving.close()
    finally:
        for worker in workers:
            worker.stop()
        server.terminate()
        server.wait()


@pytest.mark.timeout(180)
async def test_a_worker_that_was_only_frozen_agrees_with_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NATS_URL", raising=False)
    home = Home(tmp_path / "home")
    home.prepare()
    await play(module(), home)
