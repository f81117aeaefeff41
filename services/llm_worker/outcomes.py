"""How a call ended, as everybody is told it: the answer, or the error with what it used all the same."""

import msgspec

from contracts.errors import Rejected, failure
from contracts.llm import LlmAnswer, LlmError, Usage
from services.llm_worker.billing import Bill
from services.llm_worker.flight import Flight
from services.llm_worker.listening import Heard
from services.llm_worker.providers.protocol import TokensUsed
from services.llm_worker.tool_calls import normalised
from services.runtime.held_secrets import tree_without_held


def answered(flight: Flight, heard: Heard, bill: Bill, latency_ms: float) -> LlmAnswer:
    """What a provider said, as the answer of a call."""
    request, used = flight.request, bill.used
    return LlmAnswer(
        run_id=request.run_id,
        node_id=request.node_id,
        corr_id=request.corr_id,
        model_id=request.model_id,
        model_used=flight.resolved.shown,
        output="".join(heard.parts),
        tool_calls=normalised(heard.tool_calls),
        usage=Usage(used.prompt_tokens, used.completion_tokens, used.prompt_tokens + used.completion_tokens),
        # Where it counted nothing the numbers are a guess, so the price is not known.
        cost_usd_micros=None if bill.guessed else bill.cost_usd_micros,
        finish_reason=heard.reason,
        latency_ms=latency_ms,
        replay_of=request.replay_of,
        disputed=bill.disputed,
        attempt=request.attempt,
    )


def failed(flight: Flight, error: Rejected) -> LlmError:
    """The outcome of a call that failed, with what it used all the same."""
    # A provider may say anything, also what it was given in confidence.
    told = tree_without_held({"message": error.message or "", **error.detail})
    wire = failure(error.code, told.pop("message"), **{"model": flight.request.model_id, **told})
    used = flight.used
    if used is not None:
        # The provider was stopped, but what it had done by then is not free.
        total = used.prompt_tokens + used.completion_tokens
        wire["usage"] = msgspec.to_builtins(Usage(used.prompt_tokens, used.completion_tokens, total))
        wire["usage_estimated"] = flight.used_guessed
        wire["cost_usd_micros"] = used.cost_usd_micros
    return flight.error(wire)


def unkept(flight: Flight, answer: LlmAnswer | LlmError | None, error: Rejected) -> LlmError:
    """What is journaled instead of an answer that cannot be: it is paid all the same."""
    if isinstance(answer, LlmAnswer) and not answer.cached and flight.used is None:
        usage = answer.usage
        flight.used = TokensUsed(usage.prompt_tokens, usage.completion_tokens, answer.cost_usd_micros)
    return failed(flight, error)
