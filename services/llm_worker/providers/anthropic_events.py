"""Anthropic's events put together: text as it comes, the input of a tool as the text that it is until it ends.

Nobody knows whether the input is whole before it is read as JSON, strictly, with all other tool calls.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from services.llm_worker.providers.bounds import Allowance, size_of
from services.llm_worker.providers.counting import beside_caches
from services.llm_worker.providers.protocol import REFUSAL, Delta, Finish, Piece, TokensUsed, ToolCalls, Unseen

ANSWER_TOOL: Final = "answer"
"""A response schema is the input of this tool."""
REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": REFUSAL,
}


class _Message(msgspec.Struct):
    model: str | None = None
    usage: Any = None


class _Block(msgspec.Struct):
    type: str
    id: str | None = None
    name: str | None = None
    input: Any = None


class _Change(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class Event(msgspec.Struct):
    """One event of a stream; which of its parts are there depends on its type."""

    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Change | None = None
    usage: Any = None


class _Opened:
    """A block of the answer, and the text of its input up to now."""

    def __init__(self, block: _Block) -> None:
        self.block = block
        self.parts: list[str] = []

    @property
    def is_tool(self) -> bool:
        """Whether it asks us for something; tools of the provider's own are its own business."""
        return self.block.type == "tool_use"

    @property
    def arguments(self) -> str:
        """Its input as JSON text; a server may give it as a whole, in the beginning."""
        return "".join(self.parts) or json.dumps({} if self.block.input is None else self.block.input)

    def as_call(self) -> dict[str, Any]:
        """The tool call in OpenAI's shape."""
        function = {"name": self.block.name or "", "arguments": self.arguments}
        return {"id": self.block.id or "", "type": "function", "function": function}


class Answer:
    """One answer while it comes. `structured`: it is the input of the answer tool; `chooses`: there are others too."""

    def __init__(self, *, structured: bool, chooses: bool, kept: Allowance) -> None:
        self._structured, self._chooses, self._kept = structured, chooses, kept
        self._blocks: dict[int, _Opened] = {}
        self._usage: dict[str, Any] = {}
        self._message: _Message | None = None
        self._reason: str | None = None

    def take(self, event: Event) -> Iterator[Piece]:
        """What one more event says. Raises ValueError or LookupError when it makes no sense."""
        match event:
            case Event(type="message_start", message=_Message() as message):
                self._message = message
                self._count(message.usage)
            case Event(type="content_block_start", content_block=_Block() as block):
                yield from self._open(event.index, block)
            case Event(type="content_block_delta", delta=_Change() as change):
                yield from self._change(self._blocks[event.index], change)
            case Event(type="message_delta"):
                self._reason = (event.delta and event.delta.stop_reason) or self._reason
                if event.usage is not None:
                    # Each one is told: only whoever heard them all knows whether a count shrank.
                    yield self._count(event.usage)

    def end(self) -> Iterator[Piece]:
        """What can only be said when all of it came. Raises Rejected("provider_malformed") when it did not."""
        if self._message is None or self._reason is None:
            raise Rejected("provider_malformed", "the provider's stream ended without an end", provider="anthropic")
        tools = [block for block in self._blocks.values() if block.is_tool]
        answers = [tool for tool in tools if self._is_answer(tool)]
        calls = [tool.as_call() for tool in tools if not self._is_answer(tool)]
        if calls:
            yield ToolCalls(calls)
        elif answers and (self._chooses or not answers[0].parts):
            yield Delta(answers[0].arguments)
        reason = "stop" if self._reason == "tool_use" and not calls else REASONS.get(self._reason, self._reason)
        yield Finish(reason, self._message.model or "")

    def _open(self, index: int, block: _Block) -> Iterator[Piece]:
        if index in self._blocks:
            raise ValueError(f"block {index} begins twice")
        opened = self._blocks[index] = _Opened(block)
        if opened.is_tool:
            yield self._unseen(1 + size_of(block.name or ""))

    def _change(self, opened: _Opened, change: _Change) -> Iterator[Piece]:
        if change.text:
            yield Delta(change.text)
        if change.thinking:
            yield self._unseen(size_of(change.thinking))
        if change.partial_json:
            unseen = self._unseen(size_of(change.partial_json))
            opened.parts.append(change.partial_json)
            shown = self._is_answer(opened) and not self._chooses
            yield Delta(change.partial_json) if shown else unseen

    def _unseen(self, size: int) -> Unseen:
        self._kept.take(size)
        return Unseen(size)

    def _is_answer(self, opened: _Opened) -> bool:
        return self._structured and opened.is_tool and opened.block.name == ANSWER_TOOL

    def _count(self, said: Any) -> TokensUsed:
        told = said if isinstance(said, dict) else {}
        self._usage |= {name: count for name, count in told.items() if count is not None}
        names = ("cache_read_input_tokens", "cache_creation_input_tokens")
        # How long the answer is, each event says anew: what the first one said was only the beginning.
        return beside_caches(self._usage.get("input_tokens"), told.get("output_tokens"), *map(self._usage.get, names))
