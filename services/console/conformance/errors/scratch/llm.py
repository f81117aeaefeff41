"""On the scratch instance: models that fail, that nobody knows the price of, are asked too often, or say too much."""

import asyncio
from typing import Any, Final

import msgspec

from contracts.foreign import ForeignAnswer
from contracts.subjects import LLM_REQUEST_EDGE, llm_serve
from services.console.conformance.errors.responder import serving
from services.console.conformance.errors.scenario import Scenario, Sight
from services.console.conformance.errors.scratch.instance import ANSWER_S, FOREIGN, HURRIED, Scratch
from services.console.model_edge import ask_model

HURRY_MS: Final = 500
SLOW_MS: Final = 100
TIRED_AFTER: Final = 5
TIRING: Final = "mock:hang,seed=1"
FAILURES: Final = (
    "provider_auth",
    "provider_error",
    "provider_missing",
    "provider_overloaded",
    "provider_rejected",
    "provider_unreachable",
    "model_missing",
)
"""What the mock is told to fail with."""
FLOOD_CHARS: Final = 100_000
_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode
_ENCODE: Final = msgspec.json.Encoder().encode


async def _answer(scratch: Scratch, model: str, **params: Any) -> Any:
    """The error that a model's answer holds; None when it holds none."""
    body = {"input": {"messages": [{"role": "user", "content": "Hello"}]}, "params": params}
    answer = await ask_model(scratch.bus, model, body, timeout_s=ANSWER_S)
    return _DECODE(answer.data).get("error")


async def _providers(scratch: Scratch, sight: Sight) -> None:
    """Providers that fail in every way there is."""

    async def fails(code: str, model: str, **params: Any) -> None:
        await sight.refused(code, _answer(scratch, model, **params), f"{LLM_REQUEST_EDGE}.{model}")

    await asyncio.gather(
        fails("timeout", "mock:hang", timeout_ms=SLOW_MS),
        fails("provider_malformed", "mock:malformed"),
        fails("output_invalid", "mock", response_schema={"type": "object"}, mock={"text": "no object"}),
        *(fails(code, f"mock:fail={code}") for code in FAILURES),
    )


async def _breaker(scratch: Scratch, sight: Sight) -> None:
    """A model that never answers in time is left alone."""
    for _ in range(TIRED_AFTER):
        await _answer(scratch, TIRING, timeout_ms=SLOW_MS)
    await sight.refused("circuit_open", _answer(scratch, TIRING), f"{LLM_REQUEST_EDGE}.{TIRING}")


async def _hurry(scratch: Scratch, sight: Sight) -> None:
    await _answer(scratch, HURRIED)
    again = _answer(scratch, HURRIED, timeout_ms=HURRY_MS)
    await sight.refused("rate_limit_exceeded", again, f"{LLM_REQUEST_EDGE}.{HURRIED}, twice")


async def _unpriced(scratch: Scratch, sight: Sight) -> None:
    run_id = "conformance-unpriced"
    node = {"type": "llm", "model": FOREIGN, "prompt": "Hello"}
    view = await scratch.run(run_id, [{"id": "a", "node": node, "max_attempts": 1, "budget_usd_micros": 1}])
    sight.error("price_unknown", view["tasks"][0].get("error"), f"task a of the run {run_id}")


async def _flood(scratch: Scratch, sight: Sight) -> None:
    """A foreign worker says far more than it was asked for."""
    answer = _ENCODE(ForeignAnswer("x" * FLOOD_CHARS))
    async with serving(scratch.bus, llm_serve(FOREIGN), answer):
        await sight.refused("provider_overran", _answer(scratch, FOREIGN, max_tokens=1), llm_serve(FOREIGN))


LLM: Final = (
    Scenario(("timeout", "provider_malformed", "output_invalid", *FAILURES), _providers),
    Scenario(("circuit_open",), _breaker),
    Scenario(("rate_limit_exceeded",), _hurry),
    Scenario(("price_unknown",), _unpriced),
    Scenario(("provider_overran",), _flood),
)
