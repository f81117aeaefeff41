"""`htdag up --scale`: more workers, fewer workers, and a number that follows the load; no call is ever cut."""

import asyncio
import json
import os
import signal
from typing import Any

import nats
import pytest

from services.console.supervision.readiness import instance_of
from tests.e2e.instance import Instance, runs
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(180)
INPUT = {"messages": [{"role": "user", "content": "Say hi"}]}
SLOW = json.dumps({"slow": {"provider": "mock", "slots": 1}})


@pytest.fixture
def instance(tmp_path):
    made = Instance(tmp_path / "home", HTDAG_SCALE_IDLE_S="2", HTDAG_LLM_WORKER__MODELS=SLOW)
    yield made
    if (made.home / "instance.json").exists():
        made("down")
    assert made.refusals() == []


def names(instance: Instance) -> list[str]:
    said = instance("ps", "--json")
    services: dict[str, Any] = said.document["services"]
    return sorted(name for name, service in services.items() if service["state"] == "ready")


def workers(instance: Instance) -> list[str]:
    said = instance("llm", "workers", "--json")
    return [worker["worker_id"] for worker in said.document if worker["status"] == "up"] if said.code == 0 else []


async def test_the_number_is_as_wished_and_can_be_changed_while_it_runs(instance):
    document = instance.up("--only", "llm-worker", "--scale", "llm-worker=2")
    assert set(document["services"]) == {"llm-worker", "llm-worker-2"}
    await eventually(lambda: len(workers(instance)) == 2, timeout_s=20)
    more = instance("up", "--scale", "llm-worker=3", "--json")
    assert more.code == 0, more.err
    assert set(more.document["services"]) == {"llm-worker", "llm-worker-2", "llm-worker-3"}
    os.kill(more.document["services"]["llm-worker-2"]["pid"], signal.SIGKILL)
    await eventually(lambda: len(names(instance)) == 3, timeout_s=30, interval_s=0.2)
    strange = instance("up", "--scale", "executor=2", "--json")
    assert (strange.code, strange.document["error"]["code"]) == (2, "bad_request")
    less = instance("up", "--scale", "llm-worker=1", "--json")
    assert less.code == 0, less.err
    assert len(less.document["services"]) == 1
    pids = instance.pids()
    assert instance("down").code == 0
    assert not any(runs(pid) for pid in pids)


async def test_workers_come_while_calls_wait_and_go_when_idle_and_no_call_is_cut(instance):
    document = instance.up("--only", "llm-worker", "--scale", "llm-worker=1..3")
    assert set(document["services"]) == {"llm-worker"}
    client = await nats.connect(document["operator_url"])
    seen = 0

    async def ask(number: int) -> Any:
        body = {"input": INPUT, "corr_id": f"c{number}", "params": {"mock": {"delay": "1500ms"}}}
        reply = await client.request("llm.req.slow", json.dumps(body).encode(), timeout=120)
        return json.loads(reply.data)

    asking = [asyncio.create_task(ask(number)) for number in range(16)]
    while not all(task.done() for task in asking):
        seen = max(seen, len(await asyncio.to_thread(names, instance)))
        await asyncio.wait(asking, timeout=0.5)
    answers = [task.result() for task in asking]
    assert all(answer.get("output") for answer in answers), answers
    assert seen >= 2
    await eventually(lambda: names(instance) == ["llm-worker"] or len(names(instance)) == 1, timeout_s=60)
    assert json.loads((await client.request("llm.req.mock", json.dumps({"input": INPUT}).encode(), timeout=10)).data)
    await client.close()


async def test_in_the_foreground_too(instance):
    process = instance.start("up", "--port", "0", "--only", "llm-worker,executor", "--scale", "executor=2", "--json")
    document = json.loads(await asyncio.to_thread(process.stdout.readline))
    assert set(document["services"]) == {"llm-worker", "executor", "executor-2"}
    changed = instance("up", "--scale", "executor=1,llm-worker=2", "--json")
    assert changed.code == 0, changed.err
    assert len(changed.document["services"]) == 3
    assert instance("down").code == 0
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0, out + err


async def test_the_first_copy_may_be_the_one_that_goes(instance):
    """Whoever is draining already goes first; what stays is the service, under whatever name it runs."""
    document = instance.up("--only", "llm-worker", "--scale", "llm-worker=2")
    first = instance_of(instance.home / "run", "llm-worker", document["services"]["llm-worker"]["pid"])
    client = await nats.connect(document["operator_url"])
    body = json.dumps({"input": INPUT, "params": {"mock": {"delay": "5s"}}}).encode()
    asking = [asyncio.create_task(client.request("llm.req.mock", body, timeout=60)) for _ in range(8)]
    await eventually(lambda: busy(instance, first))
    await client.publish("htdag.v1.llm.drain", json.dumps({"worker_id": first}).encode())
    assert all(json.loads(answer.data).get("output") for answer in await asyncio.gather(*asking))
    await client.close()
    # Another one took its place while it ended its calls.
    await eventually(lambda: names(instance) == ["llm-worker-2", "llm-worker-3"], timeout_s=40)
    less = await asyncio.to_thread(instance, "up", "-d", "--scale", "llm-worker=1", "--json")
    assert less.code == 0, less.err
    assert names(instance) == ["llm-worker-2"]
    assert "no model answers" not in instance("ps").out
    again = instance("up", "-d", "--only", "llm-worker", "--json")
    assert again.document["error"]["code"] == "already_running"
    more = instance("up", "-d", "--scale", "llm-worker=2", "--json")
    assert (more.code, set(more.document["services"])) == (0, {"llm-worker", "llm-worker-2"})


def busy(instance: Instance, worker_id: str | None) -> bool:
    said = instance("llm", "workers", "--json")
    return said.code == 0 and any(one["worker_id"] == worker_id and one.get("in_flight") for one in said.document)
