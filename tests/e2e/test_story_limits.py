"""Story 6, its limits, with two workers: the minute, one model's breaker, unknown prices, a killed worker."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.errors import TimeoutError as NoAnswer

from tests.e2e.instance import Instance
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(240)
INPUT = {"messages": [{"role": "user", "content": "Say hello"}]}
ECHO = Path(__file__).parents[1] / "support" / "echo_worker.py"
MODELS = {
    "newmodel": {"provider": "openai", "model": "nobody-knows-it", "base_url": "http://127.0.0.1:1"},
    "flaky": {"provider": "nats", "price_in_usd_per_mtok": 0.0, "price_out_usd_per_mtok": 0.0},
}


@pytest.fixture
def instance(tmp_path) -> Iterator[Instance]:
    """Two workers with the limits that everybody has."""
    made = Instance(
        tmp_path / "home",
        HTDAG_LLM_WORKER__MODELS=json.dumps(MODELS),
        HTDAG_LLM_WORKER__BREAKER_OPEN_S="3",
    )
    del made.env["HTDAG_LLM_WORKER__LIMITS"]
    made.up("--only", "llm-worker", "--scale", "llm-worker=2")
    yield made
    made("down")
    assert made.refusals() == []


@pytest.fixture
async def client(instance: Instance) -> AsyncIterator[Client]:
    async with await nats.connect(instance.url) as connected:
        yield connected


async def ask(client: Client, model: str, *, within_s: float = 90, **body: Any) -> Any:
    request = {"input": INPUT, "params": {"timeout_ms": 75_000}, **body}
    return json.loads((await client.request(f"llm.req.{model}", json.dumps(request).encode(), timeout=within_s)).data)


def code_of(answer: Any) -> str:
    return answer.get("error", {}).get("code", "ok")


async def limits(instance: Instance) -> Any:
    return (await asyncio.to_thread(instance, "llm", "limits", "--json")).document


async def test_the_owner_sleeps_sixty_a_minute_and_a_hundred_dollars_a_day_hold(instance, client):
    calls = [asyncio.create_task(ask(client, "mock:price=0.2/call", corr_id=f"c{number}")) for number in range(70)]
    await eventually(lambda: sum(call.done() for call in calls) == 60, timeout_s=30)
    seen = await limits(instance)
    assert (seen["requests_used"], seen["queue"], seen["concurrent"]) == (60, 10, 10)
    assert seen["spent_usd_micros"] == 60 * 200_000
    line = (await asyncio.to_thread(instance, "llm", "limits")).out
    assert line.startswith("daily $100.00  spent $12.00  reserved $0.00  resets 00:00Z | 60/min used 60 | concurrent")
    # Those that waited have the next minute; nobody was refused.
    answers = await asyncio.wait_for(asyncio.gather(*calls), 90)
    assert Counter(map(code_of, answers)) == {"ok": 70}
    seen = await limits(instance)
    assert (seen["spent_usd_micros"], seen["calls"], seen["queue"]) == (14_000_000, 70, 0)
    ledger = (await asyncio.to_thread(instance, "llm", "ledger", "--limit", "100", "--json")).document
    assert ledger["cost_usd_micros"] == sum(answer["cost_usd_micros"] for answer in answers) == 14_000_000
    assert len({row["worker_id"] for row in ledger["rows"]}) == 2


async def test_five_failures_open_the_breaker_of_one_model_and_a_probe_closes_it(instance, client):
    said = [code_of(await ask(client, "flaky", corr_id=f"f{number}")) for number in range(6)]
    assert said == ["provider_unreachable"] * 5 + ["circuit_open"]
    refused = await ask(client, "flaky", corr_id="f7")
    assert 0 < refused["error"]["retry_after_ms"] <= 3_000
    assert code_of(await ask(client, "mock", corr_id="well")) == "ok"
    worker = subprocess.Popen([sys.executable, str(ECHO), instance.url, "flaky"])
    try:

        async def probed() -> bool:
            return code_of(await ask(client, "flaky")) == "ok"

        await eventually(probed, timeout_s=40, interval_s=0.2)
        models = (await asyncio.to_thread(instance, "llm", "models", "--json")).document
        assert next(model["breaker"] for model in models if model["id"] == "flaky") == "closed"
    finally:
        worker.kill()
        worker.wait()


async def test_a_price_that_nobody_knows_is_refused_while_money_is_limited(instance, client):
    assert code_of(await ask(client, "newmodel")) == "price_unknown"
    allowed = await ask(client, "newmodel", params={"allow_unpriced": True, "timeout_ms": 5_000})
    assert code_of(allowed) == "provider_unreachable"


async def test_the_reservation_of_a_killed_worker_is_paid_or_released_never_both_never_lost(instance, client):
    call = asyncio.create_task(ask(client, "mock:price=60/call,delay=9s", corr_id="big"))
    held = await eventually(lambda: _row(instance, "big", "reserved"), timeout_s=20)
    seen = await limits(instance)
    assert (seen["reserved_usd_micros"], seen["in_flight"]) == (60_000_000, 1)
    found = (await asyncio.to_thread(instance, "llm", "workers", "--json")).document
    assert held["worker_id"] in {worker["worker_id"] for worker in found}
    head, *rows = (await asyncio.to_thread(instance, "llm", "workers")).out.splitlines()
    assert head.split()[2:6] == ["CALLS", "WAITING", "LONGEST", "LIMITED"]
    assert next(row.split()[2:6] for row in rows if held["worker_id"] in row) == ["1", "0", "-", "0"]
    victims = [
        path for path in (instance.home / "run").glob("llm-worker-*.json") if held["worker_id"] in path.read_text()
    ]
    os.kill(json.loads(victims[0].read_text())["pid"], signal.SIGKILL)

    async def refused() -> str:
        try:
            wish = {"corr_id": "too-much", "params": {"timeout_ms": 1_000}}
            return code_of(await ask(client, "mock:price=60/call", within_s=8, **wish))
        except NoAnswer:
            return ""  # it was on its way to the worker that was killed: whoever asked asks again

    assert await eventually(refused, timeout_s=60) in ("budget_exceeded", "timeout")
    answer = await asyncio.wait_for(call, 90)
    assert answer["cost_usd_micros"] == 60_000_000
    paid = await eventually(lambda: _row(instance, "big", "paid"), timeout_s=30)
    assert paid["cost_usd_micros"] == 60_000_000
    seen = await limits(instance)
    assert (seen["spent_usd_micros"], seen["reserved_usd_micros"], seen["in_flight"]) == (60_000_000, 0, 0)


async def _row(instance: Instance, corr_id: str, status: str) -> Any:
    said = await asyncio.to_thread(instance, "llm", "ledger", corr_id, "--json")
    rows = said.document["rows"] if said.code == 0 else []
    return next((row for row in rows if row["status"] == status), None)
