"""A worker is killed in the middle of a stream: what its provider may bill for words nobody heard is in every sum."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.ledger import LedgerEvent, LlmPaid, LlmReserved
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.opening import CODEC
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.linked import linked
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

INPUT = {"messages": [{"role": "user", "content": "Say hi"}]}
OWN = 5 * 1 + 7 * 2
"""What the answer costs: its tokens at one and two dollars a million."""


class Dripping:
    """An OpenAI dialect that never ends its first answer to a call, and ends the second one at once."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.spoken: set[str] = set()
        self._gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
        key = head.partition("idempotency-key:")[2].split("\r\n")[0].strip()
        self.asked[key] += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        await self._say(writer, {"choices": [{"index": 0, "delta": {"content": "word "}}]})
        self.spoken.add(key)
        if self.asked[key] == 1:
            await self._gone.wait()
        else:
            await self._say(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            await self._say(writer, {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}})
            writer.write(b"data: [DONE]\n\n")
        writer.close()

    async def _say(self, writer: asyncio.StreamWriter, chunk: dict[str, Any]) -> None:
        whole = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x", **chunk}
        writer.write(f"data: {json.dumps(whole)}\n\n".encode())
        await writer.drain()

    def let_go(self) -> None:
        self._gone.set()


@pytest.fixture
async def provider() -> AsyncIterator[tuple[Dripping, str]]:
    dripping = Dripping()
    server = await asyncio.start_server(dripping.serve, "127.0.0.1", 0)
    yield dripping, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    dripping.let_go()
    server.close()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with linked(nats_server.url) as bus:
        yield bus


def config(url: str) -> dict[str, str]:
    priced = {"price_in_usd_per_mtok": 1, "price_out_usd_per_mtok": 2}
    billed = {"provider": "openai", "model": "gpt-x", "base_url": url, **priced}
    models = {"billed": billed, "once": {**billed, "honours_idempotency_key": True}}
    limits = {"usd_per_day": 1.0, "requests_per_minute": 0, "concurrent": 0}
    return {"HTDAG_LLM_WORKER__MODELS": json.dumps(models), "HTDAG_LLM_WORKER__LIMITS": json.dumps(limits)}


async def ask(bus: Bus, model: str, corr_id: str) -> dict[str, Any]:
    body = {"run_id": "r", "node_id": corr_id, "corr_id": corr_id, "input": INPUT, "params": {"stream": True}}
    said = await bus.request(f"llm.req.{model}", json.dumps(body).encode(), timeout_s=60)
    if b'"output"' not in said.data:
        raise AssertionError(said.data)
    answer: dict[str, Any] = json.loads(said.data)
    return answer


async def events(bus: Bus) -> list[LedgerEvent]:
    return [
        event async for record in bus.history(EVENTS_LLM_WORKER, SUBJECT) for event in CODEC.decode(record.data).events
    ]


@pytest.mark.timeout(120)
async def test_a_worker_killed_in_mid_stream_leaves_no_cost_out_of_the_sums(nats_server, tmp_path, bus, provider):
    dripping, url = provider
    first, second = (
        ServiceProcess("llm-worker", nats_server, tmp_path / f"home-{number}", **config(url)) for number in range(2)
    )
    first.start()
    await first.ready()
    calls = {"billed": "billed", "once": "once", "mocked": "mock:price=0.01/call,delay=3s"}
    try:
        asking = {corr_id: asyncio.create_task(ask(bus, model, corr_id)) for corr_id, model in calls.items()}

        async def all_begun() -> bool:
            reserved = [event for event in await events(bus) if isinstance(event, LlmReserved)]
            return len(reserved) == len(calls) and dripping.spoken == {"billed", "once"}

        await eventually(all_begun, timeout_s=20)
        first.kill()
        second.start()
        await second.ready()
        answers = {corr_id: await task for corr_id, task in asking.items()}

        async def paid() -> list[LlmPaid] | None:
            found = [event for event in await events(bus) if isinstance(event, LlmPaid)]
            return found if len(found) >= len(calls) else None

        found = await eventually(paid, timeout_s=20)
    finally:
        first.kill()
        second.kill()
    assert dripping.asked == {"billed": 2, "once": 2}
    (worst,) = {event.usd_micros for event in await events(bus) if isinstance(event, LlmReserved) and event.billed_by}
    costs = {event.corr_id: event.cost_usd_micros for event in found}
    assert (len(found), costs) == (3, {"billed": OWN + worst, "once": OWN, "mocked": 10_000})
    assert {corr_id: answer["cost_usd_micros"] for corr_id, answer in answers.items()} == costs
    assert answers["billed"]["abandoned_usd_micros"] == worst > 0
    assert "abandoned_usd_micros" not in answers["once"]
    assert answers["billed"]["usage"]["total_tokens"] == 12
