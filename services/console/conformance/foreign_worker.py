"""Whether a foreign worker keeps to the contract of `htdag.v1.llm.serve.<model>`: point by point."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.foreign import ForeignAnswer, ForeignAsk, ForeignToken
from contracts.llm import LlmParams
from contracts.subjects import LLM_SERVED, llm_serve
from services.console.conformance.point import Point
from services.console.model_edge import ask_model
from services.runtime.telemetry import TRACEPARENT

if TYPE_CHECKING:
    from services.runtime.bus import Bus, Message

TOGETHER: Final = 20
LONG_CHARS: Final = 100_000
TWICE_S: Final = 0.3
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TEXT: Final = "grüße 世界 🙂 one two three"
_ENCODE: Final = msgspec.json.Encoder().encode


class _Not(Exception):
    """A point was not met; the text says what was seen instead."""


class ForeignWorker:
    """Asks one worker pool. `wait_s` bounds each answer."""

    def __init__(self, bus: "Bus", model: str, wait_s: float) -> None:
        self._bus, self._model, self._wait_s = bus, model, wait_s
        self._mark = f"conformance-{secrets.token_hex(4)}"
        self._count = 0

    async def points(self) -> list[Point]:
        """All points, in order; without an answer to the first, nothing more is asked."""
        asked: list[tuple[str, Callable[[], Awaitable[str | Point]]]] = [
            ("answers", self._answers),
            ("answers once", self._once),
            ("counts tokens", self._usage),
            ("takes any text", self._any_text),
            ("takes a long text", self._long),
            ("takes headers", self._headers),
            ("answers many at once", self._many),
            ("streams", self._streams),
            ("refuses what is no request", self._refuses),
            ("works behind llm-worker", self._behind),
        ]
        found: list[Point] = []
        for name, ask in asked:
            try:
                seen = await ask()
                found.append(seen if isinstance(seen, Point) else Point(name, "pass", seen))
            except _Not as error:
                found.append(Point(name, "fail", str(error)))
            except Rejected as error:
                found.append(Point(name, "fail", f"{error.code}: {error.message}"))
            if found[0].outcome == "fail":
                break
        return found

    async def _answers(self) -> str:
        answer = await self._good("hello")
        return f"{answer.output[:60]!r}, {answer.finish_reason}"

    async def _once(self) -> str:
        heard: list[Message] = []
        first = asyncio.Event()
        subject = self._subject()

        def take(message: "Message") -> None:
            heard.append(message)
            first.set()

        subscription = await self._bus.subscribe(subject, take)
        try:
            await self._bus.flush()
            self._bus.publish(llm_serve(self._model), _ENCODE(self._request("once")), reply=subject)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await first.wait()
            await asyncio.sleep(TWICE_S)
        finally:
            await subscription.unsubscribe()
        if len(heard) != 1:
            raise _Not(f"{len(heard)} answers to one request: subscribe in a queue group")
        return ""

    async def _usage(self) -> str | Point:
        usage = (await self._good("count this")).usage
        if usage is None:
            return Point("counts tokens", "note", "no usage: tokens are guessed, and the price is unknown")
        if usage.prompt_tokens < 0 or usage.completion_tokens < 0:
            raise _Not("usage is negative")
        return f"{usage.prompt_tokens}+{usage.completion_tokens}"

    async def _any_text(self) -> str:
        return repr((await self._good(TEXT)).output[:40])

    async def _long(self) -> str:
        await self._good("word " * (LONG_CHARS // 5))
        return f"{LONG_CHARS} characters"

    async def _headers(self) -> str:
        """Calls of a traced run have one; a worker whose client knows none must say so when it logs in."""
        answer = await self._ask(_ENCODE(self._request("traced")), {TRACEPARENT: TRACE})
        if answer.error is not None:
            raise _Not(f"it says: {str(answer.error)[:200]}")
        await self._good("still there?")
        return TRACEPARENT

    async def _many(self) -> str:
        await asyncio.gather(*(self._good(f"number {number}") for number in range(TOGETHER)))
        return f"{TOGETHER} calls"

    async def _streams(self) -> str | Point:
        pieces: list[str] = []
        subject = self._subject()
        tokens = f"{subject}-tokens"

        def take(message: "Message") -> None:
            pieces.append(msgspec.json.decode(message.data, type=ForeignToken).chunk)

        subscription = await self._bus.subscribe(tokens, take)
        try:
            await self._bus.flush()
            answer = await self._good("one two three", tokens=tokens)
            await self._bus.flush()
        finally:
            await subscription.unsubscribe()
        if not pieces:
            return Point("streams", "note", "it does not: the whole answer comes at once")
        if answer.output and answer.output != "".join(pieces):
            raise _Not("the pieces together are not the output")
        return f"{len(pieces)} pieces"

    async def _refuses(self) -> str:
        answer = await self._ask(b"{no json")
        if answer.error is None:
            raise _Not("it answered as if it had been asked something")
        await self._good("still there?")
        return str(answer.error)[:60]

    async def _behind(self) -> str | Point:
        """The public edge; a model that the table does not know can be asked as `nats/NAME`."""
        seen = ""
        for name in (self._model, f"nats/{self._model}"):
            answer = await self._edge(name)
            error = answer.get("error")
            if not isinstance(error, dict):
                used = answer.get("usage", {}).get("total_tokens")
                return f"as {name}: {used} tokens, cost {answer.get('cost_usd_micros')}"
            seen = f"as {name}: {error.get('code')}"
            if error.get("code") == "price_unknown":
                return Point("works behind llm-worker", "note", f"{seen}: give it a price in the model table")
        raise _Not(seen)

    async def _edge(self, name: str) -> dict[str, Any]:
        body = {"corr_id": self._corr(), "input": {"messages": [{"role": "user", "content": "hello"}]}}
        reply = await ask_model(self._bus, name, body, timeout_s=self._wait_s * 2)
        found: dict[str, Any] = msgspec.json.decode(reply.data)
        return found

    async def _good(self, text: str, tokens: str = "") -> ForeignAnswer:
        answer = await self._ask(_ENCODE(self._request(text, tokens)))
        if answer.error is not None:
            raise _Not(f"it says: {str(answer.error)[:200]}")
        if not answer.output and not answer.tool_calls and not tokens:
            raise _Not("its answer is empty")
        return answer

    async def _ask(self, data: bytes, headers: dict[str, str] | None = None) -> ForeignAnswer:
        subject, first = self._subject(), asyncio.get_running_loop().create_future()
        subscription = await self._bus.subscribe(subject, lambda one: None if first.done() else first.set_result(one))
        try:
            await self._bus.flush()
            self._bus.publish(llm_serve(self._model), data, reply=subject, headers=headers)
            async with asyncio.timeout(self._wait_s):
                reply: Message = await first
        except TimeoutError:
            raise _Not(f"no answer within {self._wait_s:g} s") from None
        finally:
            await subscription.unsubscribe()
        if reply.headers.get("Status") == "503" and not reply.data:
            raise _Not(f"nobody serves {llm_serve(self._model)}")
        try:
            return msgspec.json.decode(reply.data, type=ForeignAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _Not(f"its answer cannot be read: {error}") from None

    def _request(self, text: str, tokens: str = "") -> ForeignAsk:
        messages = [{"role": "user", "content": text}]
        return ForeignAsk(self._corr(), self._model, messages, 50_000, LlmParams(stream=bool(tokens)), tokens)

    def _corr(self) -> str:
        self._count += 1
        return f"{self._mark}-{self._count}"

    def _subject(self) -> str:
        """Where a foreign worker may answer, though its user may write to no inbox."""
        return f"{LLM_SERVED}.{self._mark}.{self._corr()}"
