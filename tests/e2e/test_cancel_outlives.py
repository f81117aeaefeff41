"""A cancel outlives every process that heard it: what nobody wants any more is not asked for again, nor paid twice."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from contracts.llm import HEADER_DEADLINE
from tests.e2e.instance import Instance
from tests.e2e.test_llm_abandoned import INPUT, Dripping, config
from tests.e2e.test_llm_abandoned import provider as provider  # noqa: PLC0414 - a fixture
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(240)
SERVICES = ("--only", "llm-worker,executor,planner", "--scale", "llm-worker=2")
OF_A_RUN, RAW = "cancelled.a.1.llm-1", "raw"


@pytest.fixture
async def instance(tmp_path: Path, provider: tuple[Dripping, str]) -> AsyncIterator[Instance]:
    made = Instance(tmp_path / "home", **config(provider[1]))
    yield made
    if (made.home / "instance.json").exists():
        await asyncio.to_thread(made, "down")
    assert made.refusals() == []


async def kill_workers(instance: Instance) -> None:
    services: dict[str, Any] = (await asyncio.to_thread(instance, "ps", "--json")).document["services"]
    for name, service in services.items():
        if name.startswith("llm-worker"):
            os.kill(service["pid"], signal.SIGKILL)


async def row(instance: Instance, corr_id: str) -> dict[str, Any]:
    found = await asyncio.to_thread(instance, "llm", "ledger", corr_id, "--json")
    return found.document["rows"][0] if found.code == 0 and found.document["rows"] else {}


async def start_run(instance: Instance, folder: Path) -> None:
    plan = folder / "plan.json"
    plan.write_text(json.dumps([{"id": "a", "node": {"type": "llm", "model": "billed", "prompt": "Say hi"}}]))
    started = await asyncio.to_thread(instance, "run", str(plan), "--run-id", "cancelled", "--no-follow")
    assert started.code == 0, started.err


async def start_raw(client: Client) -> None:
    # Stored, as a batch user does: nobody waits, so nothing but the wish ends it.
    body = {"run_id": RAW, "node_id": "n", "corr_id": RAW, "input": INPUT, "params": {"timeout_ms": 120_000}}
    headers = {"Nats-Msg-Id": RAW, HEADER_DEADLINE: "0"}
    await client.jetstream().publish("htdag.v1.llm.req.billed", json.dumps(body).encode(), headers=headers)


async def withdrawn(client: Client, corr_id: str) -> bool:
    """Whether some worker says that the call was under way; False also while none is up."""
    try:
        said = await client.request("htdag.v1.llm-worker.llm.cancel", json.dumps({"corr_id": corr_id}).encode(), 5)
    except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
        return False
    answer: dict[str, Any] = json.loads(said.data)
    return answer["value"] is True


async def test_what_was_cancelled_while_no_worker_was_up_is_asked_of_nobody_after_a_restart(
    instance: Instance, provider: tuple[Dripping, str], tmp_path: Path
) -> None:
    dripping, _ = provider
    url = (await asyncio.to_thread(instance.up, *SERVICES))["operator_url"]
    client = await nats.connect(url)
    await start_run(instance, tmp_path)
    await start_raw(client)
    await eventually(lambda: dripping.spoken == {OF_A_RUN, RAW}, timeout_s=20)
    await kill_workers(instance)
    cancelled = await asyncio.to_thread(instance, "runs", "cancel", "cancelled")
    assert cancelled.code == 0, cancelled.err
    # Its worker is gone, and the ledger still holds what was reserved for it: it was under way.
    await eventually(lambda: withdrawn(client, RAW), timeout_s=20)
    await client.close()
    assert (await asyncio.to_thread(instance, "down")).code == 0
    await asyncio.to_thread(instance.up, *SERVICES)

    async def settled() -> list[dict[str, Any]] | None:
        rows = [await row(instance, corr_id) for corr_id in (OF_A_RUN, RAW)]
        return rows if all(one.get("status") == "paid" for one in rows) else None

    for one in await eventually(settled, timeout_s=60, interval_s=0.5):
        assert one["cost_usd_micros"] == one["abandoned_usd_micros"] > 0, one
        assert (one.get("completion_tokens", 0), one["estimated"]) == (0, True), one
    assert dripping.asked == {OF_A_RUN: 1, RAW: 1}
    for corr_id in (OF_A_RUN, RAW):
        kept = await asyncio.to_thread(instance, "llm", "replay", corr_id, "--json")
        assert kept.document["error"]["code"] == "cancelled", kept
