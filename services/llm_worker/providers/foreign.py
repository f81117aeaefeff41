"""A model behind a foreign worker: any program that answers requests on `htdag.v1.llm.serve.<model>`.

The answer comes to a subject of ours that is no inbox, so that the broker can let a foreign worker speak there and
nowhere else. Tokens come over the same subscription, so they cannot be overtaken by their answer.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from typing import Any, Final, NamedTuple

import msgspec

from contracts.errors import Rejected
from contracts.foreign import ForeignAnswer, ForeignAsk, ForeignStop, ForeignToken
from contracts.subjects import LLM_SERVED, llm_serve, llm_served, llm_stop
from services.llm_worker.models import Resolved
from services.llm_worker.providers.bounds import Allowance, of_wire
from services.llm_worker.providers.counting import plain
from services.llm_worker.providers.failures import said
from services.llm_worker.providers.protocol import Call, Delta, Finish, Piece, ToolCalls
from services.runtime.bus import Bus, Message

TOKENS: Final = "-tokens"
CODES: Final = frozenset(
    {"provider_auth", "provider_rejected", "provider_overloaded", "provider_error", "provider_unreachable", "timeout"}
)
"""What a foreign worker may say of its provider; anything else is `provider_error`."""
_ENCODE: Final = msgspec.json.Encoder().encode
_TOKEN: Final = msgspec.json.Decoder(ForeignToken).decode


class _Answer(ForeignAnswer, frozen=True):
    """The answer as strangers write it: one whose usage is no count is an answer all the same."""

    usage: Any = None


_ANSWER: Final = msgspec.json.Decoder(_Answer).decode


class _Heard(NamedTuple):
    tokens: bool
    message: Message


class _Asked:
    """One call and what came for it. What comes beyond its allowance is not kept; reading on says so."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._came: asyncio.Queue[_Heard | Rejected] = asyncio.Queue()
        self._over = False

    def put(self, heard: _Heard) -> None:
        """One message of the foreign worker."""
        if self._over:
            return
        try:
            self._allowance.take(len(heard.message.data))
        except Rejected as error:
            self._over = True
            self._came.put_nowait(error)
        else:
            self._came.put_nowait(heard)

    async def get(self) -> _Heard:
        """The next message. Raises Rejected("provider_overran")."""
        came = await self._came.get()
        if isinstance(came, Rejected):
            raise came
        return came


class ForeignProvider:
    """Asks foreign workers. `instance` is this worker's own name at the broker."""

    def __init__(self, bus: Bus, instance: str) -> None:
        self._bus, self._instance = bus, instance
        self._numbers = itertools.count(1)
        self._waiting: dict[str, _Asked] = {}
        self._listening: asyncio.Task[None] | None = None

    def missing(self, resolved: Resolved) -> str:
        """Who serves a model is known when it is asked."""
        return ""

    async def close(self) -> None:
        """The connection is the worker's own."""

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """The answer, with its tokens before it where they come."""
        await self._listen()
        name = f"c{next(self._numbers)}"
        heard = self._waiting[name] = _Asked(of_wire(call))
        model = call.resolved.config.model or call.resolved.used
        ended = False
        try:
            self._ask(call, model, name)
            streamed = 0
            while True:
                one = await heard.get()
                if one.tokens:
                    text = _piece(one.message)
                    streamed += len(text)
                    yield Delta(text)
                    continue
                ended = True
                for piece in _end(one.message, model, streamed):
                    yield piece
                return
        finally:
            del self._waiting[name]
            if not ended:
                self._bus.publish(llm_stop(model), _ENCODE(ForeignStop(call.request.corr_id)))

    def _ask(self, call: Call, model: str, name: str) -> None:
        params, subject = call.request.params, llm_served(self._instance, name)
        ask = ForeignAsk(
            corr_id=call.request.corr_id,
            model=model,
            messages=call.request.input.messages,
            max_tokens=call.max_tokens,
            params=params,
            tokens=f"{subject}{TOKENS}" if params.stream else "",
        )
        self._bus.publish(llm_serve(model), _ENCODE(ask), reply=subject)

    async def _listen(self) -> None:
        if self._listening is None or (self._listening.done() and self._listening.exception()):
            self._listening = asyncio.create_task(self._subscribe(), name="llm-served")
        await asyncio.shield(self._listening)

    async def _subscribe(self) -> None:
        await self._bus.subscribe(f"{LLM_SERVED}.{self._instance}.*", self._take)
        await self._bus.flush()

    def _take(self, message: Message) -> None:
        name = message.subject.rpartition(".")[2]
        heard = self._waiting.get(name.removesuffix(TOKENS))
        if heard is not None:
            heard.put(_Heard(name.endswith(TOKENS), message))


def _piece(message: Message) -> str:
    try:
        return _TOKEN(message.data).chunk
    except msgspec.MsgspecError as error:
        raise Rejected("provider_malformed", "a token of the foreign worker cannot be read", provider="nats") from error


def _end(message: Message, model: str, streamed: int) -> list[Piece]:
    if not message.data and message.headers.get("Status") == "503":
        raise Rejected("provider_unreachable", f"nobody serves {model}", provider="nats", subject=llm_serve(model))
    try:
        answer = _ANSWER(message.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(
            "provider_malformed", "the foreign worker's answer cannot be read", provider="nats", detail=said(error)
        ) from error
    if answer.error is not None:
        code = answer.error.get("code") if isinstance(answer.error, dict) else None
        known = code if isinstance(code, str) and code in CODES else "provider_error"
        raise Rejected(known, provider="nats", detail=said(answer.error))
    # What was used is known first: if something else of the answer makes no sense, it is paid all the same.
    pieces: list[Piece] = [] if answer.usage is None else [plain(answer.usage)]
    if not streamed and answer.output:
        pieces.append(Delta(answer.output))
    if answer.tool_calls:
        pieces.append(ToolCalls(answer.tool_calls))
    return [*pieces, Finish(answer.finish_reason)]
