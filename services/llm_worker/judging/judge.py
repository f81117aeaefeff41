"""Judges schemas and answers: at once what is quick, which is nearly everything; the rest beside it, a few at a time.

Whoever sends a schema that asks for years of work waits behind others who do, and keeps nobody else waiting.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from services.llm_worker.judging.lane import END_S, Kind, Lane, NoRoom, TooMuch, Verdict
from services.llm_worker.judging.turns import Full

FIELD: Final = "params.response_schema"
QUICK: Final = Kind(judges=2, cpu_s=0.1, nice=0, waiting_max=256)
SLOW: Final = Kind(judges=2, cpu_s=2.0, nice=10, waiting_max=32)
CROWD_MAX: Final = 64
"""While more questions wait, no call is begun here whose answer is to be judged."""
JUDGE_S: Final = 10.0
"""Of the clock, from the question to the verdict, its turn included."""
SHOWN_CHARS_MAX: Final = 2_000
CROWD_HINT: Final = "ask again later: schemas that ask for much keep the judges of this worker busy"
CUT_HINT: Final = "it was cut off: raise max_tokens"
_ENCODE: Final = msgspec.json.Encoder().encode


class Late(Exception):
    """No judge had time for a question."""


class Judge:
    """Judges for everybody who asks; `asker` names whoever takes turns with the others. `log` is structlog's."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._quick, self._slow = Lane(QUICK), Lane(SLOW)
        self._under_way: set[asyncio.Timeout] = set()
        self._hurried = False
        self._quiet = asyncio.Event()

    @property
    def crowded(self) -> bool:
        """Whether answers that are paid already would wait for too long behind those that are here."""
        return self._quick.turns.waiting >= CROWD_MAX

    async def check_schema(self, schema: dict[str, Any], *, asker: str = "", within_s: float = JUDGE_S) -> None:
        """Raise Rejected("invalid_request") when no answer could be judged by this schema.

        Raises Rejected("provider_overloaded") when there is no time to find out: nothing is paid yet.
        """
        try:
            verdict = await self._ask({"schema": schema}, asker, within_s)
        except TooMuch:
            raise Rejected("invalid_request", "it takes too long to be understood", field=FIELD) from None
        except Late:
            raise Rejected(
                "provider_overloaded", "too many schemas wait to be judged here", field=FIELD, hint=CROWD_HINT
            ) from None
        if verdict.senseless is not None:
            raise Rejected("invalid_request", verdict.senseless, field=FIELD)

    async def check_answer(
        self, schema: dict[str, Any], output: str, finish_reason: str, *, asker: str = "", within_s: float = JUDGE_S
    ) -> None:
        """Raise Rejected("output_invalid") when the text of an answer is no JSON, or does not keep to the schema.

        The same when nobody can tell in time: it is passed on as an answer only if it is known to be one. The refusal
        shows what was answered: it is paid.
        """
        try:
            verdict = await self._ask({"schema": schema, "output": output}, asker, within_s)
            wrong = verdict.senseless or verdict.wrong
        except TooMuch:
            wrong = "it takes too long to be judged"
        except Late:
            raise _unjudged("in time", output, finish_reason) from None
        except Rejected as error:
            raise _unjudged(f"here: {error.detail.get('detail')}", output, finish_reason) from error
        if wrong is not None:
            raise _invalid(f"the answer does not keep to response_schema: {wrong}", output, finish_reason)

    def hurry(self) -> None:
        """There is no time any more, for whatever is here and whatever comes."""
        self._hurried = True
        for limit in self._under_way:
            limit.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Answer no more, and end all processes."""
        self.hurry()
        if self._under_way:
            self._quiet.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._quiet.wait()
        await self._quick.close()
        await self._slow.close()

    async def _ask(self, question: dict[str, Any], asker: str, within_s: float) -> Verdict:
        data = _ENCODE(question) + b"\n"
        try:
            async with asyncio.timeout(0 if self._hurried else min(within_s, JUDGE_S)) as limit:
                self._under_way.add(limit)
                try:
                    return await self._quick_or_slow(data, asker)
                finally:
                    self._under_way.discard(limit)
                    if not self._under_way:
                        self._quiet.set()
        except (TimeoutError, Full, NoRoom) as error:
            self._log.warning("not_judged", code="timeout", hint="schemas that ask for too much keep the judges busy")
            raise Late from error

    async def _quick_or_slow(self, data: bytes, asker: str) -> Verdict:
        try:
            return await self._quick.ask(data, asker)
        except TooMuch:
            pass  # the other judges have twenty times as long
        try:
            return await self._slow.ask(data, asker)
        except TooMuch:
            self._log.warning("judge_ended", code="timeout", hint="a response_schema asked for too much")
            raise


def _unjudged(why: str, output: str, finish_reason: str) -> Rejected:
    return _invalid(f"the answer could not be judged by response_schema {why}", output, finish_reason)


def _invalid(message: str, output: str, finish_reason: str) -> Rejected:
    more = {"hint": CUT_HINT} if finish_reason == "length" else {}
    return Rejected("output_invalid", message, output=output[:SHOWN_CHARS_MAX], finish_reason=finish_reason, **more)
