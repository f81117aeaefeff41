"""A live replay is heard from whoever answers it, and waited for as long as was said and no longer."""

import asyncio
import json
from typing import Any

import nats
import pytest

from tests.e2e.instance import Instance
from tests.e2e.test_cancel_outlives import SERVICES, kill_workers, row
from tests.e2e.test_cancel_outlives import instance as instance  # noqa: PLC0414 - a fixture
from tests.e2e.test_llm_abandoned import INPUT, Dripping
from tests.e2e.test_llm_abandoned import provider as provider  # noqa: PLC0414 - a fixture
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(240)


async def answered(url: str, corr_id: str) -> None:
    client = await nats.connect(url)
    try:
        body = {"run_id": "r", "node_id": corr_id, "corr_id": corr_id, "input": INPUT}
        said = await client.request("llm.req.billed", json.dumps(body).encode(), timeout=30)
        assert b'"output"' in said.data, said.data
    finally:
        await client.close()


async def test_the_answer_is_heard_although_the_workers_die_and_no_longer_waited_for_than_was_said(
    instance: Instance, provider: tuple[Dripping, str]
) -> None:
    dripping, _ = provider
    url = (await asyncio.to_thread(instance.up, *SERVICES))["operator_url"]
    dripping.asked["c"] = 1  # only the second asking of a call is answered, and this call is to be
    await answered(url, "c")
    waiting = asyncio.create_task(asyncio.to_thread(instance, "llm", "replay", "c", "--live", "--json", "--wait", "80"))
    await eventually(lambda: len(dripping.spoken) == 2, timeout_s=30)
    await kill_workers(instance)
    live = await waiting
    assert live.code == 0, live.err
    answer: dict[str, Any] = live.document
    assert (answer["paid"], answer["replay_of"], answer["output"]) == (True, "c", "word ")
    assert dripping.asked[answer["corr_id"]] == 2
    assert (await row(instance, answer["corr_id"]))["cost_usd_micros"] == answer["cost_usd_micros"]

    late = await asyncio.to_thread(instance, "llm", "replay", "c", "--live", "--json", "--wait", "2", timeout_s=30)
    assert late.code == 124, late
    assert late.err.startswith("error: timeout: no answer within 2 s"), late.err
    later = late.err.partition("`htdag llm replay ")[2].partition("`")[0]
    assert later.startswith("c.live-"), late.err
    assert (await row(instance, later))["status"] == "reserved"
