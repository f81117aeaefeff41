"""An answer that breaks off before anything of it is seen has begun all the same: it is paid, and asked for once."""

import json
from typing import Any

import pytest

from contracts.ledger import LlmPaid
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.ledger.opening import CODEC
from services.llm_worker.listening import Heard
from services.llm_worker.providers.protocol import TokensUsed
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew
from tests.unit.llm_worker.http_provider import answering, events

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
LIMITED = LimitsConfig(usd_per_day=1.0, requests_per_minute=0, concurrent=0)
ARGUMENTS = '{"path":"' + "x" * 400
BUSY = '{"error":{"message":"busy","code":503}}'


def openai_body(delta: dict[str, Any]) -> str:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return events(json.dumps({**chunk, "choices": [{"index": 0, "delta": delta}]}), BUSY)


def anthropic_body(block: dict[str, Any], delta: dict[str, Any]) -> str:
    usage = {"input_tokens": 3, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    steps = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
    ]
    return "".join(f"event: {step['type']}\ndata: {json.dumps(step)}\n\n" for step in steps)


CALL = {"index": 0, "id": "t", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}
BODIES: dict[str, tuple[Any, str]] = {
    "a tool call of openai": ("openai", openai_body({"tool_calls": [CALL]})),
    "thoughts of an openai server": ("openai", openai_body({"reasoning_content": "hm " * 100})),
    "a tool call of anthropic": (
        "anthropic",
        anthropic_body(
            {"type": "tool_use", "id": "t", "name": "look", "input": {}},
            {"type": "input_json_delta", "partial_json": ARGUMENTS},
        ),
    ),
    "thoughts of anthropic": (
        "anthropic",
        anthropic_body(
            {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "hm " * 100}
        ),
    ),
}


async def paid_in(crew: Crew) -> LlmPaid | None:
    facts = [
        event
        async for record in crew.bus.history(EVENTS_LLM_WORKER, SUBJECT)
        for event in CODEC.decode(record.data).events
    ]
    return next((fact for fact in facts if isinstance(fact, LlmPaid)), None)


@pytest.mark.parametrize("what", BODIES)
async def test_what_breaks_off_unseen_is_paid_and_asked_once(bus: Bus, what):
    kind, body = BODIES[what]
    async with answering(200, body, kind="text/event-stream") as url:
        model = ModelConfig(
            provider=kind, model="m", base_url=url, price_in_usd_per_mtok=10.0, price_out_usd_per_mtok=20.0,
            api_key_env="ANTHROPIC_API_KEY",
        )  # fmt: skip
        crew = Crew(bus, Config(limits=LIMITED, models={"m": model}, anthropic_api_key="k"))
        await crew.worker.start()
        await crew.ask("c", model="m", params={"max_tokens": 500, "tools": [{"function": {"name": "look"}}]})
        answer = await eventually(lambda: crew.answer("c"))
        paid = await eventually(lambda: paid_in(crew))
    assert answer["error"]["code"] == "provider_overloaded"
    assert (answer["error"]["usage"]["completion_tokens"] > 50, answer["error"]["usage_estimated"]) == (True, True)
    assert paid.cost_usd_micros == answer["error"]["cost_usd_micros"] > 0
    assert crew.metrics.value("htdag_llm_retries_total", provider=kind, model="m") == 0
    crew.writing.cancel()
    await crew.providers.close()


def test_a_count_that_grows_counts_and_a_later_smaller_one_does_not():
    heard = Heard(None, [])
    for said in (TokensUsed(5, 1), TokensUsed(5, 40), TokensUsed(0, 0)):
        heard.take(said)
    assert heard.tokens_used() == (TokensUsed(5, 40), False)
