"""A journaled answer as the run that asked takes it."""

from typing import Any, Final

import msgspec

from contracts.llm import OutputRef, Usage
from contracts.run import TakeAnswer


class _Spent(msgspec.Struct, frozen=True):
    """A journaled error, as far as somebody pays for it."""

    usage: Usage | None = None
    cost_usd_micros: int | None = None


class _Paid(msgspec.Struct, frozen=True):
    """A journaled answer, as far as a run needs it."""

    output: str = ""
    tool_calls: list[Any] = []
    model_used: str = ""
    usage: Usage | None = None
    cost_usd_micros: int | None = None
    finish_reason: str = ""
    latency_ms: float = 0.0
    error: dict[str, Any] | None = None
    output_ref: OutputRef | None = None
    cached: bool = False
    abandoned_tokens: int = 0


_PAID: Final = msgspec.json.Decoder(_Paid).decode


def take_of(corr_id: str, data: bytes) -> TakeAnswer:
    """The command that brings an answer to its run. Raises msgspec.MsgspecError when `data` is no answer."""
    paid = _PAID(data)
    spent = paid if paid.error is None else msgspec.convert(paid.error, _Spent)
    return TakeAnswer(
        corr_id=corr_id,
        output=paid.output,
        tool_calls=paid.tool_calls,
        model_used=paid.model_used,
        usage=spent.usage,
        cost_usd_micros=spent.cost_usd_micros,
        finish_reason=paid.finish_reason,
        latency_ms=paid.latency_ms,
        error=paid.error,
        output_ref=paid.output_ref,
        # Free for a run is what cost nothing at all.
        cached=paid.cached and not paid.abandoned_tokens,
    )
