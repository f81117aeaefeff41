"""A pool of workers: who is there, how busy, and how one leaves without cutting a call."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from tests.support.eventually import eventually
from tests.support.listening import listen
from tests.support.nats_server import NatsServer

INPUT = {"messages": [{"role": "user", "content": "Say hi"}]}
SLOW = {"HTDAG_LLM_WORKER__MODELS": json.dumps({"slow": {"provider": "mock", "slots": 1}})}


async def ask(client: Client, subject: str, body: Any, timeout_s: float = 15) -> Any:
    return json.loads((await client.request(subject, json.dumps(body).encode(), timeout=timeout_s)).data)


async def listed(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask(client, "htdag.v1.llm-worker.llm.workers", {}))["value"]
    return found


async def test_a_worker_that_just_began_knows_the_others_at_once(start, client):
    for _ in range(2):
        await start()  # their next beat is 30 s away
    await start()
    for _ in range(6):  # whichever of the three answers
        assert [worker["status"] for worker in await listed(client)] == ["up"] * 3


@pytest.mark.timeout(120)
async def test_a_worker_that_was_killed_is_told_alike_by_those_that_knew_it_and_those_that_came_later(start, client):
    beats = {"HTDAG_LLM_WORKER__HEARTBEAT_S": "1"}
    killed, other = await start(**beats), await start(**beats)
    first = {worker["worker_id"] for worker in await listed(client)}
    killed.kill()
    await start(**beats)

    async def told() -> set[tuple[str, str]]:
        answers = [await listed(client) for _ in range(12)]
        return {(worker["worker_id"], worker["status"]) for workers in answers for worker in workers}

    async def one_is_dead() -> str | None:
        found = await told()
        dead = [name for name, status in found if status == "dead"]
        return dead[0] if len(found) == 3 and len(dead) == 1 else None

    # Whichever of the two answers, twelve times: one word for each of the three.
    assert await eventually(one_is_dead, timeout_s=20) in first
    other.kill()
    killed.start()
    await killed.ready()

    async def two_are_dead() -> bool:
        found = await told()
        return len(found) == 4 and sum(status == "dead" for _, status in found) == 2

    assert await eventually(two_are_dead, timeout_s=20)


@pytest.mark.timeout(120)
async def test_all_workers_call_a_killed_one_dead_at_the_same_moment(start, client):
    """Also the one that called the roll, and had its answer, just before it was killed."""
    beats = {"HTDAG_LLM_WORKER__HEARTBEAT_S": "3"}
    others = [await start(**beats) for _ in range(2)]
    known = {worker["worker_id"] for worker in await listed(client)}
    beating: asyncio.Queue[str] = asyncio.Queue()
    victim = await start(**beats)
    await listen(client, "llm.health", lambda message: beating.put_nowait(json.loads(message.data)["worker_id"]))
    while (name := await asyncio.wait_for(beating.get(), 10)) in known:
        pass
    now_s = asyncio.get_running_loop().time
    beat_s = now_s()
    told: list[str] = []

    async def ask_whoever() -> None:
        views = {worker["worker_id"]: worker["status"] for worker in await listed(client)}
        told.append(views[name])

    await eventually(lambda: now_s() > beat_s + 2.3)
    await ask_whoever()
    victim.kill()
    asking = []
    while now_s() < beat_s + 13:
        asking.append(asyncio.create_task(ask_whoever()))
        await asyncio.wait(asking[-1:], timeout=0.1)
    await asyncio.gather(*asking)
    assert set(told[-10:]) == {"dead"}
    # Two answers that cross on their way may change places; nothing else.
    assert told.count("up") - 2 <= told.index("dead")
    assert not any(other.dead for other in others)


async def test_waiting_calls_are_seen_and_a_draining_worker_ends_its_call(start, client):
    one = await start(**SLOW)
    body = {"input": INPUT, "run_id": "r", "params": {"mock": {"delay": "2s"}}}
    asking = [
        asyncio.create_task(ask(client, "llm.req.slow", {**body, "node_id": f"n{number}", "corr_id": f"c{number}"}))
        for number in range(3)
    ]

    async def two_wait() -> dict[str, Any] | None:
        (worker,) = await listed(client)
        return worker if (worker.get("in_flight"), worker.get("waiting")) == (3, 2) else None

    worker = await eventually(two_wait)
    assert worker.get("wait_ms", 0) >= 0
    other = await start(**SLOW)
    await client.publish("htdag.v1.llm.drain", json.dumps({"worker_id": worker["worker_id"]}).encode())

    async def draining() -> bool:
        return {view["worker_id"]: view["status"] for view in await listed(client)}[worker["worker_id"]] == "draining"

    await eventually(draining)
    answer = await ask(client, "llm.req.mock", {"input": INPUT})
    assert answer["output"]
    assert not one.dead
    assert all(answer["output"] for answer in await asyncio.gather(*asking))

    async def empty() -> bool:
        return {view["worker_id"]: view.get("in_flight", 0) for view in await listed(client)}[worker["worker_id"]] == 0

    await eventually(empty)
    assert one.terminate() == 0
    assert (await ask(client, "llm.req.slow", {"input": INPUT}))["output"]
    assert not other.dead


async def test_five_failures_over_two_workers_open_the_breaker_for_both(start, client):
    for _ in range(2):
        await start(HTDAG_LLM_WORKER__BREAKER_OPEN_S="2")
    ill = "mock:fail=provider_error"
    for _ in range(5):
        assert (await ask(client, f"llm.req.{ill}", {"input": INPUT}))["error"]["code"] == "provider_error"
    refused = [(await ask(client, f"llm.req.{ill}", {"input": INPUT}))["error"] for _ in range(4)]
    assert {error["code"] for error in refused} == {"circuit_open"}
    assert 0 < refused[0]["retry_after"] <= 2
    assert (await ask(client, "llm.req.mock", {"input": INPUT}))["output"]
    models = (await ask(client, "htdag.v1.llm-worker.llm.models", {}))["value"]
    assert {model["id"]: model["breaker"] for model in models if "breaker" in model} == {ill: "open"}

    async def probed() -> bool:
        return (await ask(client, f"llm.req.{ill}", {"input": INPUT}))["error"]["code"] == "provider_error"

    await eventually(probed, interval_s=0.1)
    assert (await ask(client, f"llm.req.{ill}", {"input": INPUT}))["error"]["code"] == "circuit_open"


async def htdag(server: NatsServer, *words: str) -> tuple[int, str, str]:
    program = str(Path(sys.executable).parent / "htdag")
    env = {**os.environ, "NATS_URL": server.url}
    process = await asyncio.create_subprocess_exec(program, *words, env=env, stdout=-1, stderr=-1)
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


async def test_a_frozen_worker_blinds_nobody_and_is_named(start, client, nats_server):
    frozen = await start()
    ((name,), _) = [worker["worker_id"] for worker in await listed(client)], await start()
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        tables = await asyncio.gather(*(htdag(nats_server, "llm", "workers", "--json") for _ in range(5)))
        assert [code for code, _, _ in tables] == [0] * 5
        for _, out, _ in tables:
            assert [worker["worker_id"] for worker in json.loads(out) if worker.get("silent")] == [name]
        reads = [("models",), ("limits",), ("ledger",), ("estimate", "Hi", "--model", "mock")]
        told = await asyncio.gather(*(htdag(nats_server, "llm", *words) for words in reads for _ in range(2)))
        assert [code for code, _, _ in told] == [0] * len(told)
        assert any(name in errors for _, _, errors in told)
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
