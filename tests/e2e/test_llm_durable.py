"""Durable requests, as the executor and batch users store them: who gets the answer, and what becomes of bad ones."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

INPUT = {"messages": [{"role": "user", "content": "Say hi"}]}


@pytest.fixture
async def worker(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    process = ServiceProcess("llm-worker", nats_server, tmp_path / "home")
    process.start()
    await process.ready()
    yield process
    process.kill()


@pytest.fixture
async def client(nats_server: NatsServer, worker: ServiceProcess) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url)
    yield connected
    await connected.close()


async def store(client: Client, corr_id: str, body: Any, **headers: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    await client.jetstream().publish(
        "htdag.v1.llm.req.mock",
        data,
        headers={"Nats-Msg-Id": corr_id, **{k.replace("_", "-"): v for k, v in headers.items()}},
    )


async def last(client: Client, stream: str, subject: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    try:
        message = await client.jetstream().get_last_msg(stream, subject)
    except NotFoundError:
        return None
    return json.loads(message.data or b"null"), message.headers or {}


async def count(client: Client, stream: str) -> int:
    return (await client.jetstream().stream_info(stream)).state.messages


async def test_a_run_gets_its_answer_in_its_mailbox(client):
    mailbox = "htdag.v1.cmd.executor.run.r.answer"
    request = {"run_id": "r", "node_id": "t", "corr_id": "r.t.1.llm-1", "input": INPUT}
    await store(client, "r.t.1.llm-1", request, Htdag_Answer_To=mailbox)
    stored = await eventually(lambda: last(client, "HTDAG_CMD", "htdag.v1.in.*.executor.run.r.answer"))
    assert stored is not None
    take, headers = stored
    answer, _ = await last(client, "HTDAG_LLM_RESP", "htdag.v1.llm.resp.r.t") or ({}, {})
    assert take["type"] == "run.answer.v1"
    assert headers["Nats-Msg-Id"] == "answer:r.t.1.llm-1"
    for field in ("corr_id", "output", "usage", "model_used", "finish_reason"):
        assert take[field] == answer[field]
    assert await eventually(lambda: _empty(client))


async def test_an_error_reaches_the_run_after_one_try(client, worker):
    mailbox = "htdag.v1.cmd.executor.run.r.answer"
    request = {"run_id": "r", "node_id": "t", "corr_id": "c", "input": INPUT, "params": {"mock": {"fail_first": 1}}}
    await store(client, "c", request, Htdag_Answer_To=mailbox)
    stored = await eventually(lambda: last(client, "HTDAG_CMD", "htdag.v1.in.*.executor.run.r.answer"))
    assert stored is not None
    # The run alone decides whether to try again.
    assert stored[0]["error"]["code"] == "provider_error"


@pytest.mark.parametrize(
    "mailbox",
    ["htdag.v1.cmd.executor.run.other.answer", "htdag.v1.cmd.executor.run.r.cancel", "htdag.v1.evt.executor.run.r"],
)
async def test_a_mailbox_that_is_not_the_runs_own_gets_nothing(client, mailbox):
    await store(client, "c", {"run_id": "r", "node_id": "t", "corr_id": "c", "input": INPUT}, Htdag_Answer_To=mailbox)
    assert await eventually(lambda: last(client, "HTDAG_LLM_RESP", "htdag.v1.llm.resp.r.t"))
    assert await eventually(lambda: _empty(client))
    assert await count(client, "HTDAG_CMD") == 0
    assert await count(client, "HTDAG_EVT_EXECUTOR") == 0


async def test_a_stored_request_that_is_wrong_is_answered_in_the_journal(client):
    await store(client, "c", {"run_id": "r", "node_id": "t", "corr_id": "c", "input": {"messages": []}})
    stored = await eventually(lambda: last(client, "HTDAG_LLM_RESP", "htdag.v1.llm.resp.r.t"))
    assert stored is not None
    assert stored[0]["error"]["code"] == "invalid_request"
    assert stored[1]["Htdag-Outcome"] == "invalid_request"
    assert await eventually(lambda: _empty(client))


async def test_a_stored_message_that_is_no_request_becomes_a_dead_letter(client):
    await store(client, "c", b"{no json")
    stored = None

    async def put_aside() -> bool:
        nonlocal stored
        try:
            stored = await client.jetstream().get_last_msg("HTDAG_DLQ", "htdag.v1.dlq.HTDAG_LLM_REQ")
        except NotFoundError:
            return False
        return True

    await eventually(put_aside)
    assert stored is not None
    assert stored.data == b"{no json"
    assert stored.headers["Htdag-Reason"] == "bad_json"
    assert await eventually(lambda: _empty(client))


async def test_many_calls_of_one_node_each_keep_their_own_answer(client):
    for number in range(20):
        await store(client, f"c{number}", {"run_id": "r", "node_id": "t", "corr_id": f"c{number}", "input": INPUT})
    assert await eventually(lambda: _empty(client))
    assert await count(client, "HTDAG_LLM_RESP") == 20
    for number in (0, 7, 19):
        body = {"run_id": "r", "node_id": "t", "corr_id": f"c{number}", "input": INPUT}
        reply = await client.request("llm.req.mock", json.dumps(body).encode(), timeout=5)
        assert json.loads(reply.data)["corr_id"] == f"c{number}"
    assert await count(client, "HTDAG_LLM_RESP") == 20


async def _empty(client: Client) -> bool:
    """Nothing waits and nothing is under way."""
    info = await client.jetstream().consumer_info("HTDAG_LLM_REQ", "llm-worker")
    return info.num_pending == 0 and info.num_ack_pending == 0
