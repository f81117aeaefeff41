"""What the worker asks of a provider, and what a provider says while it answers."""

from collections.abc import AsyncGenerator
from typing import Any, Final, NamedTuple, Protocol

from contracts.llm import LlmRequest
from services.llm_worker.models import Resolved


class Call(NamedTuple):
    """One call: the request as it was journaled, what its model resolved to, and the output bound that counts."""

    request: LlmRequest
    resolved: Resolved
    max_tokens: int


class Delta(NamedTuple):
    """A piece of the output."""

    text: str


class Unseen(NamedTuple):
    """So many bytes of an answer came that are no output yet: tool calls in the making, thoughts.

    Nobody is shown them, but the call has begun to be answered: it is not free any more, nor asked anew.
    """

    size: int


class ToolCalls(NamedTuple):
    """The tools the model wants called, in OpenAI's shape, complete."""

    calls: list[dict[str, Any]]


class TokensUsed(NamedTuple):
    """Tokens as the provider counted them; `cost_usd_micros` only where the provider's word on cost counts (mock).

    `prompt_tokens` are all of the prompt; `cache_read` and `cache_written` of them have prices of their own.
    """

    prompt_tokens: int
    completion_tokens: int
    cost_usd_micros: int | None = None
    cache_read: int = 0
    cache_written: int = 0


class Finish(NamedTuple):
    """The end of the answer; `reason` is stop, length, tool_calls, content_filter or refusal.

    `model` is the one that answered, by the provider's own word: a name may stand for a dated version.
    """

    reason: str
    model: str = ""


Piece = Delta | Unseen | ToolCalls | TokensUsed | Finish


class Provider(Protocol):
    """One kind of outside model. Closing the generator stops the call at the provider."""

    def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """The answer, piece by piece; raises Rejected with one of the provider codes. Knows no deadline."""
        ...

    def missing(self, resolved: Resolved) -> str:
        """Why this model cannot answer now, or an empty string."""
        ...

    async def close(self) -> None:
        """Let go of connections and child processes."""
        ...


REFUSAL: Final = "refusal"
"""The model declined: the answer is the words it did so with."""

CALL_AGAIN: Final = frozenset({"provider_overloaded", "provider_error", "provider_unreachable"})
"""Errors after which the same call may well succeed."""

FINAL: Final = frozenset({"ok", "cancelled", "provider_rejected", "too_large", "provider_overran", "output_invalid"})
"""Outcomes that settle a `corr_id` for ever. After any other error that cost nothing the request is called again."""
