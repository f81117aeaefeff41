"""The processes that judge answers: few, kept for the next question, killed when one takes too long."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from services.llm_worker.judging import child as program
from services.runtime.child import Child, start

FIELD: Final = "params.response_schema"
CHILDREN_MAX: Final = 4
START_S: Final = 30.0
JUDGE_S: Final = 10.0
"""Of the clock; of a processor it is `child.CPU_S`."""
LINE_BYTES_MAX: Final = 64 << 10
SHOWN_CHARS_MAX: Final = 2_000
CUT_HINT: Final = "it was cut off: raise max_tokens"
_ENCODE: Final = msgspec.json.Encoder().encode


class Verdict(msgspec.Struct, frozen=True):
    """What a judge says: why a schema can judge nothing, or what is wrong with an answer."""

    senseless: str | None = None
    wrong: str | None = None


_DECODE: Final = msgspec.json.Decoder(Verdict).decode


class _Unjudged(Exception):
    """It took too long or too much."""


class Judge:
    """Judges schemas and answers. `log` is structlog's."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._places = asyncio.Semaphore(CHILDREN_MAX)
        self._idle: list[Child] = []
        self._ending: set[asyncio.Task[int]] = set()

    async def check_schema(self, schema: dict[str, Any]) -> None:
        """Raise Rejected("invalid_request") when no answer could be judged by this schema."""
        try:
            verdict = await self._ask({"schema": schema})
        except _Unjudged:
            raise Rejected("invalid_request", "it takes too long to be understood", field=FIELD) from None
        if verdict.senseless is not None:
            raise Rejected("invalid_request", verdict.senseless, field=FIELD)

    async def check_answer(self, schema: dict[str, Any], output: str, finish_reason: str) -> None:
        """Raise Rejected("output_invalid") when the text of an answer is no JSON, or does not keep to the schema.

        The refusal shows what was answered: it is paid.
        """
        try:
            verdict = await self._ask({"schema": schema, "output": output})
            wrong = verdict.senseless or verdict.wrong
        except _Unjudged:
            wrong = "it takes too long to be judged"
        if wrong is None:
            return
        more = {"hint": CUT_HINT} if finish_reason == "length" else {}
        message = f"the answer does not keep to response_schema: {wrong}"
        raise Rejected("output_invalid", message, output=output[:SHOWN_CHARS_MAX], finish_reason=finish_reason, **more)

    async def close(self) -> None:
        """End all processes."""
        while self._idle:
            self._end(self._idle.pop())
        if self._ending:
            await asyncio.wait(self._ending, timeout=JUDGE_S)

    async def _ask(self, question: dict[str, Any]) -> Verdict:
        async with self._places:
            child = self._idle.pop() if self._idle else await self._started()
            try:
                verdict = await _answered(child, _ENCODE(question) + b"\n")
            except (TimeoutError, OSError, msgspec.MsgspecError):
                self._end(child)
                self._log.warning("judge_ended", code="timeout", hint="a response_schema asked for too much")
                raise _Unjudged from None
            except BaseException:  # whoever asked has given up; half an answer may be under way
                self._end(child)
                raise
            self._idle.append(child)
            return verdict

    async def _started(self) -> Child:
        child = await start(_command(), limit=LINE_BYTES_MAX, stdin=True, stderr=False)
        try:
            async with asyncio.timeout(START_S):
                _DECODE(await child.stdout.readline())
        except (TimeoutError, msgspec.MsgspecError) as error:
            self._end(child)
            detail = "the judge of structured answers cannot be started"
            raise Rejected("missing_dependency", detail=detail) from error
        except BaseException:
            self._end(child)
            raise
        return child

    def _end(self, child: Child) -> None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        child.close()
        task = asyncio.create_task(child.wait(), name="judge-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _command() -> list[str]:
    found = find_spec("jsonschema_rs")
    folder = str(Path(str(found.origin)).parents[1]) if found is not None else ""
    return [sys.executable, "-I", "-S", str(program.__file__), folder]


async def _answered(child: Child, question: bytes) -> Verdict:
    if child.stdin is None:
        raise OSError("it cannot be told anything")
    async with asyncio.timeout(JUDGE_S):
        child.stdin.write(question)
        await child.stdin.drain()
        return _DECODE(await child.stdout.readline())
