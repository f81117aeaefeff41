"""A worker that hangs while its process lives: nobody but its beats can tell, and it is ended to be begun anew."""

import asyncio
import json
import os
import signal
from typing import Any

import nats
import pytest

from tests.e2e.instance import Instance, runs
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(180)
INPUT = {"messages": [{"role": "user", "content": "Say hi"}]}


@pytest.fixture
def instance(tmp_path):
    made = Instance(tmp_path / "home", HTDAG_LLM_WORKER__HEARTBEAT_S="1")
    yield made
    if (made.home / "instance.json").exists():
        made("down")
    assert made.refusals() == []


def pids(instance: Instance) -> dict[str, int]:
    """The workers that are ready, by name."""
    services: dict[str, Any] = instance("ps", "--json").document["services"]
    return {name: service["pid"] for name, service in services.items() if service["state"] == "ready"}


def said(instance: Instance) -> str:
    return (instance.home / "logs" / "scaler.log").read_text(encoding="utf-8")


async def test_one_of_two_hangs_with_calls_under_way_and_another_process_takes_its_place(instance):
    document = instance.up("--only", "llm-worker", "--scale", "llm-worker=2")
    before = {name: service["pid"] for name, service in document["services"].items()}
    client = await nats.connect(document["operator_url"])

    async def ask(number: int) -> Any:
        # Stored: whoever has it when it hangs has not answered it.
        answers = await client.subscribe(f"llm.resp.hung.n{number}")
        request = {"input": INPUT, "run_id": "hung", "node_id": f"n{number}", "corr_id": f"hung-{number}"}
        body = json.dumps({**request, "params": {"mock": {"delay": "6s"}}}).encode()
        headers = {"Nats-Msg-Id": f"hung-{number}"}
        await client.jetstream().publish("htdag.v1.llm.req.mock", body, headers=headers)
        return json.loads((await answers.next_msg(timeout=90)).data)

    asking = [asyncio.create_task(ask(number)) for number in range(8)]
    await eventually(lambda: all_busy(instance), timeout_s=20)
    os.kill(before["llm-worker-2"], signal.SIGSTOP)
    try:
        after = await eventually(lambda: replaced(instance, before), timeout_s=60, interval_s=0.3)
        assert after["llm-worker"] == before["llm-worker"]
        assert not runs(before["llm-worker-2"])
        answers = await asyncio.gather(*asking)
        assert all(answer.get("output") for answer in answers), answers
    finally:
        if runs(before["llm-worker-2"]):
            os.kill(before["llm-worker-2"], signal.SIGCONT)
    assert said(instance).count("HANGS") == 1
    assert f"pid {before['llm-worker-2']} is killed" in said(instance)
    await client.close()


async def test_the_only_worker_of_an_instance_without_wishes_is_replaced_too(instance):
    document = instance.up("--only", "llm-worker")
    before = {"llm-worker": document["services"]["llm-worker"]["pid"]}
    os.kill(before["llm-worker"], signal.SIGSTOP)
    try:
        await eventually(lambda: replaced(instance, before), timeout_s=60, interval_s=0.3)
    finally:
        if runs(before["llm-worker"]):
            os.kill(before["llm-worker"], signal.SIGCONT)
    client = await nats.connect(document["operator_url"])
    assert json.loads((await client.request("llm.req.mock", json.dumps({"input": INPUT}).encode(), timeout=10)).data)
    await client.close()


def all_busy(instance: Instance) -> bool:
    views = instance("llm", "workers", "--json").document
    return len(views) == 2 and all(view.get("in_flight") for view in views)


def replaced(instance: Instance, before: dict[str, int]) -> dict[str, int] | None:
    """The workers, once as many are ready as were, and not all are the same processes."""
    now = pids(instance)
    return now if now.keys() == before.keys() and now != before else None
