"""Judges of one kind: so many processes, so much of a processor for each question, and a queue of their own."""

import asyncio
import errno
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from contracts.errors import Rejected
from services.llm_worker.judging import child as program
from services.llm_worker.judging.turns import Turns
from services.runtime.child import Child, start

START_S: Final = 30.0
END_S: Final = 10.0
LINE_BYTES_MAX: Final = 64 << 10


class Verdict(msgspec.Struct, frozen=True):
    """What a judge says: why a schema can judge nothing, or what is wrong with an answer."""

    senseless: str | None = None
    wrong: str | None = None


class TooMuch(Exception):
    """A judge used all it may on a question, and has no verdict."""


class NoRoom(Exception):
    """The machine has no room for one more judge now."""


class Kind(NamedTuple):
    """How many judges there are, what each may use for a question, how it yields to others, how many may wait."""

    judges: int
    cpu_s: float
    nice: int
    waiting_max: int


_DECODE: Final = msgspec.json.Decoder(Verdict).decode


class Lane:
    """Processes of one kind: started when they are needed, kept for the next question, killed when one is too much."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.turns = Turns(kind.judges, kind.waiting_max)
        self._idle: list[Child] = []
        self._ending: set[asyncio.Task[int]] = set()

    async def ask(self, question: bytes, asker: str) -> Verdict:
        """The verdict; the caller sets the deadline. Raises TooMuch, Full, NoRoom, or Rejected: judges never start."""
        await self.turns.take(asker)
        try:
            return await self._judged(question)
        finally:
            self.turns.release()

    async def close(self) -> None:
        """End all processes."""
        while self._idle:
            self._end(self._idle.pop())
        if self._ending:
            await asyncio.wait(self._ending, timeout=END_S)

    async def _judged(self, question: bytes) -> Verdict:
        child = self._idle.pop() if self._idle else await self._started()
        try:
            verdict = await _answered(child, question)
        except (OSError, msgspec.MsgspecError) as error:  # its end: the kernel's, or its own for want of memory
            self._end(child)
            raise TooMuch from error
        except BaseException:  # whoever asked has given up; half an answer may be under way
            self._end(child)
            raise
        self._idle.append(child)
        return verdict

    async def _started(self) -> Child:
        try:
            child = await start(_command(self._kind), limit=LINE_BYTES_MAX, stdin=True, stderr=False)
        except OSError as error:
            raise NoRoom if error.errno in (errno.EAGAIN, errno.ENOMEM) else _missing() from error
        try:
            async with asyncio.timeout(START_S):
                await _greeted(child)
        except TimeoutError as error:
            self._end(child)
            raise NoRoom from error
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


async def _greeted(child: Child) -> None:
    try:
        _DECODE(await child.stdout.readline())
    except msgspec.MsgspecError as error:
        # It says itself that it lacks something; when the kernel ended it, it was too much for this machine.
        raise NoRoom if await child.wait() < 0 else _missing() from error


def _missing() -> Rejected:
    return Rejected("missing_dependency", detail="the judge of structured answers cannot be started")


def _command(kind: Kind) -> list[str]:
    found = find_spec("jsonschema_rs")
    folder = str(Path(str(found.origin)).parents[1]) if found is not None else ""
    return [sys.executable, "-I", "-S", str(program.__file__), folder, str(kind.cpu_s), str(kind.nice)]


async def _answered(child: Child, question: bytes) -> Verdict:
    if child.stdin is None:
        raise OSError("it cannot be told anything")
    child.stdin.write(question)
    await child.stdin.drain()
    return _DECODE(await child.stdout.readline())
