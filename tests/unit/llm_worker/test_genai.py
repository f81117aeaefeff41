"""A call as the GenAI conventions tell it: every attribute they ask for, and metrics under their names."""

import asyncio

import pytest

from contracts.errors import Rejected
from contracts.llm import LlmInput, LlmParams, LlmRequest
from services.llm_worker import genai
from services.llm_worker.config import ModelConfig
from services.llm_worker.models import GEMINI_URL, Resolved
from services.llm_worker.providers.protocol import TokensUsed
from services.runtime.clock import FixedClock
from services.runtime.metrics import Metrics

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PARAMS = LlmParams(stream=True, temperature=0.2, top_p=0.9, seed=7, stop=["x"], response_schema={"type": "object"})
REQUEST = LlmRequest(LlmInput([{"role": "user", "content": "a secret"}]), "r", "n", "c", "m", PARAMS)
OPENAI = Resolved("m", "gpt-x", ModelConfig(provider="openai", base_url="https://llm.example:8443/v1"))
LABELS = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "gpt-x"}


def begin(metrics: Metrics, clock: FixedClock, resolved: Resolved = OPENAI):
    return genai.inference(
        request=REQUEST,
        resolved=resolved,
        model=resolved.used,
        max_tokens=50,
        headers={"traceparent": TRACE},
        clock=clock,
        metrics=metrics,
        cut=lambda: "timeout",
    )


async def test_a_call_that_ends_well(spans, clock: FixedClock):
    metrics = Metrics()
    with begin(metrics, clock) as told:
        clock.advance(300)
        told.chunk()
        clock.advance(50)
        told.chunk()
        told.used(TokensUsed(12, 34), estimated=False)
        told.answered("stop", "gpt-x-2026-11-01")
    (span,) = spans()
    assert (span.name, span.kind.name) == ("chat gpt-x", "CLIENT")
    assert f"{span.context.trace_id:032x}" == TRACE[3:35]
    assert {name: value for name, value in span.attributes.items() if not name.endswith("first_chunk")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.request.stream": True,
        "gen_ai.output.type": "json",
        "gen_ai.conversation.id": "r",
        "gen_ai.response.model": "gpt-x-2026-11-01",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 34,
        "server.address": "llm.example",
        "server.port": 8443,
        "htdag.corr_id": "c",
        "htdag.node_id": "n",
    }
    assert span.attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.3)
    assert "secret" not in str(span.attributes)
    assert metrics.value(genai.DURATION, **LABELS, error_type="") == pytest.approx(0.35)
    assert metrics.value(genai.FIRST_CHUNK, **LABELS) == pytest.approx(0.3)
    assert metrics.value(genai.PER_CHUNK, **LABELS) == pytest.approx(0.05)
    assert metrics.value(genai.TOKENS, **LABELS, gen_ai_token_type="input") == 12
    assert metrics.value(genai.TOKENS, **LABELS, gen_ai_token_type="output") == 34
    text = metrics.render().decode()
    assert 'gen_ai_client_token_usage_bucket{gen_ai_operation_name="chat"' in text
    assert 'le="67108864.0"' in text


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Rejected("provider_overloaded"), "provider_overloaded"),
        (asyncio.CancelledError(), "timeout"),
        (KeyError("a bug"), "internal"),
    ],
)
async def test_a_call_that_does_not(spans, clock: FixedClock, error, kind):
    metrics = Metrics()

    def fail() -> None:
        with begin(metrics, clock):
            clock.advance(20)
            raise error

    with pytest.raises(type(error)):
        fail()
    (span,) = spans()
    assert span.attributes["error.type"] == kind
    assert (span.status.status_code.name, bool(span.status.description)) == ("ERROR", True)
    assert metrics.value(genai.DURATION, **LABELS, error_type=kind) == pytest.approx(0.02)


async def test_a_provider_that_does_not_say_which_model_answered_is_believed_to_be_the_one_that_was_asked(
    spans, clock: FixedClock
):
    with begin(Metrics(), clock) as told:
        told.answered("stop", "")
    assert spans()[0].attributes["gen_ai.response.model"] == "gpt-x"


async def test_providers_have_the_names_of_the_conventions_and_our_own_model_is_internal(spans, clock: FixedClock):
    gemini = Resolved("m", "gemini-2.5-pro", ModelConfig(provider="openai", base_url=GEMINI_URL))
    assert genai.provider_name(gemini) == "gcp.gemini"
    assert genai.provider_name(OPENAI) == "openai"
    with begin(Metrics(), clock, Resolved("m", "smollm2", ModelConfig(provider="embedded"))):
        pass
    assert spans()[0].kind.name == "INTERNAL"
