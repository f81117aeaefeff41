"""What a provider says while it says it: put together for the answer, and passed on to whoever watches."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmToken
from contracts.streams import LLM_TOKENS
from contracts.subjects import llm_tokens
from services.llm_worker.flight import Flight
from services.llm_worker.prices import CHARS_PER_TOKEN
from services.llm_worker.providers.bounds import Allowance, size_of, sound
from services.llm_worker.providers.protocol import Delta, Finish, Piece, TokensUsed, ToolCalls, Unseen
from services.llm_worker.tool_calls import check_named, whole
from services.runtime.bus import Bus

WORD_CHARS_MAX: Final = 100
_ENCODE: Final = msgspec.json.Encoder().encode


class TokenStream:
    """Publishes one call's tokens: seq from 1, an empty done one at the end. A new try of a dead worker starts at 1."""

    def __init__(self, bus: Bus, flight: Flight, on_token: Callable[[bool], None]) -> None:
        self._bus, self._flight, self._on_token = bus, flight, on_token
        self._subject = llm_tokens(flight.key.run_id, flight.key.node_id)
        self.seq = 0

    def put(self, text: str) -> None:
        """One more chunk."""
        self.seq += 1
        try:
            self._bus.publish(self._subject, _ENCODE(LlmToken(text, self.seq, False)))
        except Rejected:
            # Whoever watches sees the gap; the answer, which is paid, must not be lost over it.
            self._on_token(False)
        else:
            self._on_token(True)

    async def end(self) -> None:
        """The done chunk. It is acknowledged before the answer is journaled, so that watchers see it first."""
        self.seq += 1
        first = self._flight.waiters[0].delivery
        msg_id = f"done:{self._flight.key.corr_id}:{first.seq}:{first.delivered}"
        data = _ENCODE(LlmToken("", self.seq, True))
        await self._bus.store(self._subject, data, stream=LLM_TOKENS, msg_id=msg_id)


def _nobody() -> None:
    return None


class Heard:
    """What a provider has said so far."""

    __slots__ = (
        "allowance",
        "messages",
        "model",
        "on_chunk",
        "parts",
        "reason",
        "senseless",
        "tokens",
        "tool_calls",
        "unseen",
        "used",
    )

    def __init__(
        self, tokens: TokenStream | None, messages: list[dict[str, Any]], allowance: Allowance | None = None
    ) -> None:
        self.tokens, self.messages, self.allowance = tokens, messages, allowance
        self.senseless = False
        self.on_chunk: Callable[[], None] = _nobody
        self.parts: list[str] = []
        self.unseen = 0
        self.tool_calls: list[dict[str, Any]] = []
        self.used: TokensUsed | None = None
        self.reason = self.model = ""

    def take(self, piece: Piece) -> None:
        """One more piece; text goes to whoever watches at once.

        Raises Rejected("provider_overran") when the output is more than the call may have, and
        Rejected("provider_malformed") when a tool call names no tool.
        """
        match piece:
            case Delta(text):
                self._allow(text)
                text = whole(text)
                self.parts.append(text)
                self.on_chunk()
                if self.tokens is not None and text:
                    self.tokens.put(text)
            case Unseen(size):
                self.unseen += size
            case TokensUsed():
                self._count(piece)
            case ToolCalls(calls):
                self.tool_calls = calls
                self._allow(str(calls))
                check_named(calls)
            case Finish(reason, model):
                self.reason, self.model = whole(str(reason))[:WORD_CHARS_MAX], whole(str(model))[:WORD_CHARS_MAX]

    @property
    def begun(self) -> bool:
        """Whether the provider had begun to answer: then the call is not free."""
        return self.used is not None or bool(self.parts) or bool(self.tool_calls) or self.unseen > 0

    def _count(self, said: TokensUsed) -> None:
        """Some servers count while they speak; a count never shrinks."""
        self.senseless = not sound(said)
        if self.senseless:
            self.used = None
        elif self.used is None or sum(said[:2]) >= sum(self.used[:2]):
            self.used = said

    def _allow(self, text: str) -> None:
        if self.allowance is not None:
            self.allowance.take(size_of(text))

    def tokens_used(self) -> tuple[TokensUsed, bool]:
        """Its tokens up to now, and whether they are only a guess."""
        if self.used is not None:
            return self.used, False
        return _guessed(self.messages, sum(map(len, self.parts)) + self.unseen), True


def _guessed(messages: list[dict[str, Any]], output_chars: int) -> TokensUsed:
    return TokensUsed(len(_ENCODE(messages)) // CHARS_PER_TOKEN + 1, output_chars // CHARS_PER_TOKEN + 1)
