"""A worker is killed anywhere between its provider's answer and the journal: each asking is paid once, none is lost.

Where the answer was kept, whoever takes the call over judges what is kept and asks nobody; where it was not, the first
asking is abandoned, and the answer says what the ledger says.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.ledger import LedgerEvent, LlmPaid, LlmReserved
from contracts.streams import EVENTS_LLM_WORKER, LLM_RESPONSES
from contracts.subjects import llm_response
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.opening import CODEC
from services.runtime import nats_client
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
TOOLS = [{"type": "function", "function": {"name": "fs", "parameters": {"type": "object"}}}]
GOOD, BAD = '{"colour":"red"}', '{"colour":3}'
OWN = 5 * 1 + 7 * 2
"""What one asking costs: its tokens at one and two dollars a million."""


class Speaker:
    """An OpenAI dialect that says the same at each asking, and counts them."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.text = GOOD
        self.calls: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
        self.asked[head.partition("idempotency-key:")[2].split("\r\n")[0].strip()] += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        said = {"tool_calls": self.calls} if self.calls else {"content": self.text}
        self._say(writer, {"choices": [{"index": 0, "delta": said}]})
        self._say(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._say(writer, {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}})
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        writer.close()

    def _say(self, writer: asyncio.StreamWriter, chunk: dict[str, Any]) -> None:
        whole = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x", **chunk}
        writer.write(f"data: {json.dumps(whole)}\n\n".encode())


@pytest.fixture
async def provider() -> AsyncIterator[tuple[Speaker, str]]:
    speaker = Speaker()
    server = await asyncio.start_server(speaker.serve, "127.0.0.1", 0)
    yield speaker, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    bus = Bus(await nats_client.connect(nats_server.url, name="test"))
    await bus.start()
    yield bus
    await bus.close()


def config(url: str) -> dict[str, str]:
    billed = {
        "provider": "openai", "model": "gpt-x", "base_url": url,
        "price_in_usd_per_mtok": 1, "price_out_usd_per_mtok": 2,
    }  # fmt: skip
    limits = {"usd_per_day": 1.0, "requests_per_minute": 0, "concurrent": 0}
    return {
        "HTDAG_LLM_WORKER__MODELS": json.dumps({"billed": billed}),
        "HTDAG_LLM_WORKER__LIMITS": json.dumps(limits),
    }


def unlimited(url: str) -> dict[str, str]:
    """Nothing is held for a call, so nobody can tell from the ledger that it was begun."""
    models = json.loads(config(url)["HTDAG_LLM_WORKER__MODELS"])
    models["billed"]["honours_idempotency_key"] = True
    return {"HTDAG_LLM_WORKER__MODELS": json.dumps(models)}


async def ask(bus: Bus, **params: Any) -> dict[str, Any]:
    whole = {"messages": [{"role": "user", "content": "Say a colour"}]}
    body = {"run_id": "r", "node_id": "n", "corr_id": "c", "input": whole, "params": params}
    said = await bus.request("llm.req.billed", json.dumps(body).encode(), timeout_s=60)
    answer: dict[str, Any] = json.loads(said.data)
    return answer


async def events(bus: Bus) -> list[LedgerEvent]:
    return [
        event async for record in bus.history(EVENTS_LLM_WORKER, SUBJECT) for event in CODEC.decode(record.data).events
    ]


async def through_a_death(
    server: NatsServer, tmp_path: Any, bus: Bus, configured: dict[str, str], fault: str, **params: Any
) -> dict[str, Any]:
    """The outcome of a call whose first worker is killed at `fault`; the ledger holds nothing any more."""
    first, second = (
        ServiceProcess("llm-worker", server, tmp_path / f"home-{number}", **configured) for number in range(2)
    )
    first.start(fault=fault)
    await first.ready()
    try:
        asking = asyncio.create_task(ask(bus, **params))
        await eventually(lambda: first.dead, timeout_s=20)
        assert first.exit_code == -9, first.tail()
        second.start()
        await second.ready()
        answer = await asking
        await eventually(lambda: _nothing_is_held(bus), timeout_s=20)
    finally:
        first.kill()
        second.kill()
    assert (await bus.subjects(LLM_RESPONSES, llm_response("r", "n"))).popitem()[1] == 1
    return answer


async def _nothing_is_held(bus: Bus) -> bool:
    all_ = await events(bus)
    return isinstance(all_[-1], LlmPaid)


async def proven(bus: Bus, speaker: Speaker, answer: dict[str, Any], *, kept: bool) -> None:
    """The provider was asked as often as it is paid, and the one answer says what the ledger does."""
    (paid,) = [event for event in await events(bus) if isinstance(event, LlmPaid)]
    bill = answer.get("error", answer)
    worst = next(event.usd_micros for event in await events(bus) if isinstance(event, LlmReserved))
    assert speaker.asked["c"] == (1 if kept else 2)
    assert paid.cost_usd_micros == bill["cost_usd_micros"] == OWN + (0 if kept else worst or 0)
    assert bool(paid.abandoned) is not kept
    assert ("abandoned_usd_micros" in bill) is not kept
    assert (paid.prompt_tokens, paid.completion_tokens) == (5, 7)
    assert (bill["usage"]["prompt_tokens"], bill["usage"]["completion_tokens"]) == (5, 7)


@pytest.mark.law("I4")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("text", [GOOD, BAD], ids=["good", "bad"])
@pytest.mark.parametrize("fault", ["llm_worker.after_kept", "llm_worker.after_ledger:2", "llm_worker.after_answer"])
async def test_what_was_kept_is_judged_by_whoever_takes_over_and_paid_once(
    nats_server: NatsServer, tmp_path: Any, bus: Bus, provider: tuple[Speaker, str], fault: str, text: str
) -> None:
    speaker, url = provider
    speaker.text = text
    answer = await through_a_death(nats_server, tmp_path, bus, config(url), fault, response_schema=SCHEMA, stream=True)
    if text == GOOD:
        assert (answer["output"], answer["model_used"]) == (GOOD, "billed")
    else:
        assert (answer["error"]["code"], answer["error"]["output"]) == ("output_invalid", BAD)
    await proven(bus, speaker, answer, kept=True)


@pytest.mark.law("I4")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "params"),
    [
        ("llm_worker.after_provider", {"response_schema": SCHEMA}),
        ("llm_worker.after_answer", {"stream": True}),
        ("llm_worker.after_answer", {"tools": TOOLS, "response_schema": SCHEMA}),
        ("llm_worker.after_answer", {"cache": True}),
    ],
    ids=["before it is kept", "a stream", "a call of tools", "by content"],
)
async def test_what_nobody_kept_is_asked_again_and_both_askings_are_paid(
    nats_server: NatsServer, tmp_path: Any, bus: Bus, provider: tuple[Speaker, str], fault: str, params: dict[str, Any]
) -> None:
    speaker, url = provider
    if "tools" in params:
        speaker.calls = [{"index": 0, "id": "t1", "type": "function", "function": {"name": "fs", "arguments": "{}"}}]
    answer = await through_a_death(nats_server, tmp_path, bus, config(url), fault, **params)
    assert "error" not in answer
    await proven(bus, speaker, answer, kept=False)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", ["llm_worker.after_kept", "llm_worker.after_ledger:1"])
async def test_what_was_kept_is_judged_and_paid_once_without_limits_too(
    nats_server: NatsServer, tmp_path: Any, bus: Bus, provider: tuple[Speaker, str], fault: str
) -> None:
    speaker, url = provider
    answer = await through_a_death(nats_server, tmp_path, bus, unlimited(url), fault, response_schema=SCHEMA)
    (paid,) = [event for event in await events(bus) if isinstance(event, LlmPaid)]
    assert (answer["output"], answer["cost_usd_micros"], paid.cost_usd_micros) == (GOOD, OWN, OWN)
    assert speaker.asked["c"] == 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("params", [{}, {"response_schema": SCHEMA}], ids=["plain", "judged"])
async def test_what_is_journaled_is_handed_over(
    nats_server: NatsServer, tmp_path: Any, bus: Bus, provider: tuple[Speaker, str], params: dict[str, Any]
) -> None:
    speaker, url = provider
    answer = await through_a_death(nats_server, tmp_path, bus, config(url), "llm_worker.after_journal", **params)
    assert answer["output"] == GOOD
    await proven(bus, speaker, answer, kept=True)
