"""What llm-worker and a foreign worker say to each other: a worker in any language that serves one model.

It answers requests on `htdag.v1.llm.serve.<model_id>` in a queue group, like any NATS service. Ledger, journal, breaker
and everything else stay with llm-worker; the foreign worker only talks to its model.
"""

from typing import Any

import msgspec

from contracts.llm import LlmParams


class ForeignAsk(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call. With `tokens`, pieces may be published there while they come; the reply ends the call."""

    corr_id: str
    model: str
    messages: list[dict[str, Any]]
    max_tokens: int
    params: LlmParams = LlmParams()
    tokens: str = ""


class ForeignUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens as the model counted them."""

    prompt_tokens: int
    completion_tokens: int


class ForeignAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reply: `output`, or `error`, which is a text or `{"code", "message"}` with one of the provider codes.

    Without `usage`, or with one that is no count, tokens are guessed and the price is not known. `tool_calls` may have
    any of the usual shapes; each names its tool.
    """

    output: str = ""
    usage: ForeignUsage | None = None
    finish_reason: str = "stop"
    tool_calls: list[dict[str, Any]] = []
    error: str | dict[str, Any] | None = None


class ForeignToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of the output. All pieces together are the `output` of the reply, which may then leave it empty."""

    chunk: str


class ForeignStop(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nobody wants the answer of this call any more: it was cancelled, or its time is up."""

    corr_id: str
