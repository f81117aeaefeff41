"""The chunks of a stream in OpenAI's dialect, as far as they matter here, and tool calls joined from their parts."""

from typing import Any, Final

import msgspec

from services.llm_worker.providers.bounds import size_of
from services.llm_worker.providers.counting import with_total
from services.llm_worker.providers.protocol import TokensUsed

FIRST: Final = 0
"""One answer is asked for; a server may give others beside it."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


_NOTHING: Final = _Function()


class Part(msgspec.Struct):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: _Function | None = None

    @property
    def size(self) -> int:
        """How much it adds to what is kept."""
        said = self.function or _NOTHING
        return 1 + size_of(said.name or "") + size_of(said.arguments or "")


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[Part] | None = None

    @property
    def thought(self) -> int:
        """How much a model that thinks aloud thought; servers have two names for it, and OpenAI's own has none."""
        said = self.reasoning_content or self.reasoning
        return size_of(said) if isinstance(said, str) else 0


class _Choice(msgspec.Struct):
    delta: _Delta
    index: int | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """One chunk. Its usage is anything at all."""

    choices: list[_Choice]
    model: str | None = None
    usage: Any = None

    def first(self) -> list[_Choice]:
        """What it says of the first answer; a server that gives only one may leave its number out."""
        return [choice for choice in self.choices if (choice.index or FIRST) == FIRST]


def used(usage: Any) -> TokensUsed:
    """The tokens of a call, as the server counts them."""
    told = usage if isinstance(usage, dict) else {}
    prompt, completion, total = (told.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    details = told.get("prompt_tokens_details")
    return with_total(prompt, completion, total, details.get("cached_tokens") if isinstance(details, dict) else None)


class JoinedCalls:
    """Tool calls whose parts come one by one: in OpenAI's shape, in the order in which they began."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self._open: dict[int | None, dict[str, Any]] = {}

    def take(self, part: Part) -> None:
        """One more part. Some servers give all calls of an answer the same number: another id is another call."""
        call = self._open.get(part.index)
        if call is None or (part.id and call["id"] and part.id != call["id"]):
            call = self._open[part.index] = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            self.calls.append(call)
        said = part.function or _NOTHING
        call["id"] = part.id or call["id"]
        call["function"]["name"] += said.name or ""
        call["function"]["arguments"] += said.arguments or ""
