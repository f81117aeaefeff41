"""One box from its start to the end of its last process."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.sandbox.cgroups import Group
from services.policy_gateway.sandbox.limits import Limits
from services.policy_gateway.sandbox.output import CHUNK_BYTES, HeadAndTail, Output, collect, said, told
from services.policy_gateway.sandbox.watchdog import Watch, Watchdog
from services.runtime.child import Child, start

STATUS_BYTES_MAX: Final = 4096
UMASK: Final = 0o022
"""What programs write in a workspace is for others to read: a tester's container runs as another user."""
END_TIMEOUT_S: Final = 5.0


class Ending(NamedTuple):
    """How a program ended. `exit` is 128 + n after signal n; `killed` says which bound ended it, if one did."""

    exit: int
    stdout: Output
    stderr: Output
    killed: str | None
    duration_ms: int

    def to_value(self) -> dict[str, Any]:
        """The value of a tool call: `truncated`, and where it is so `lossy` and `killed`."""
        value = told(self.stdout, self.stderr, self.exit, self.duration_ms)
        return value | ({"killed": self.killed} if self.killed is not None else {})


class SetupFailed(Exception):
    """Bubblewrap ended before the program began. Its own words may hold paths of the host."""


class DeadlinePassed(Exception):
    """The program was killed because its time was over; `ending` tells what it had printed, if it had begun."""

    def __init__(self, ending: Ending | None = None) -> None:
        super().__init__()
        self.ending = ending

    def to_rejected(self, timeout_ms: int) -> Rejected:
        """The failure of a tool call."""
        printed = said(self.ending.stdout, self.ending.stderr) if self.ending is not None else {}
        return Rejected("timeout", **printed, timeout_ms=timeout_ms)


class Running:
    """A started bubblewrap. Whoever makes it must `end()` it, whatever happens."""

    def __init__(self, process: Child, group: Group | None) -> None:
        self._process = process
        self._group = group
        # Descriptors of bubblewrap and of the first process inside, with which everything inside ends. Signals go
        # through them, since asyncio's own way reaps the child behind its watcher's back.
        self._outer = _pidfd(process.pid)
        self._first: int | None = None
        self._first_pid = 0
        self._status = b""

    @classmethod
    async def start(cls, command: Sequence[str], inherited: Sequence[int], group: Group | None) -> "Running":
        """Start bubblewrap with nothing of ours but these descriptors; raises OSError."""
        return cls(await start(command, inherited=inherited, limit=CHUNK_BYTES, umask=UMASK), group)

    async def first_pid(self, status: asyncio.StreamReader) -> int:
        """The first process inside, as the host counts; it waits at the gate. Raises SetupFailed."""
        line = await status.readline()
        try:
            self._first_pid = int(json.loads(line)["child-pid"])
            self._first = os.pidfd_open(self._first_pid)
        except (ValueError, KeyError, OSError) as why:
            raise SetupFailed(await self._last_words()) from why
        return self._first_pid

    async def finish(
        self, status: asyncio.StreamReader, limits: Limits, watch: Watch, stop: asyncio.Event, began_s: float
    ) -> Ending:
        """Wait for the program or to be stopped, end what is left, and say how it went."""
        streams = (self._process.stdout, self._process.stderr)
        printed = [HeadAndTail(limits.output_bytes) for _ in streams]
        reading = [asyncio.ensure_future(collect(stream, kept)) for stream, kept in zip(streams, printed, strict=True)]
        watchdog = Watchdog(self._first_pid, self._inside(), limits, watch)
        watchdog.start()
        waiting = [asyncio.ensure_future(self._process.wait()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await self.end()
            exit_code = await self._process.wait()
            await asyncio.gather(*reading)
            status_said = await status.read(STATUS_BYTES_MAX)
        finally:
            watchdog.stop()
            for task in (*waiting, *reading):
                task.cancel()
            self._process.close()
        killed = "deadline" if stop.is_set() else watchdog.reason
        stdout, stderr = (kept.output() for kept in printed)
        if b"exit-code" not in status_said and killed is None:
            raise SetupFailed(stderr.kept.decode("utf-8", "replace").strip())
        if killed is None and self._group is not None and self._group.memory_kills():
            killed = "memory"
        duration_ms = round((asyncio.get_running_loop().time() - began_s) * 1000)
        return Ending(128 - exit_code if exit_code < 0 else exit_code, stdout, stderr, killed, duration_ms)

    def _inside(self) -> int:
        if self._first is None:
            raise SetupFailed("the first process inside is not known")
        return self._first

    async def end(self) -> None:
        """Kill whatever is left and wait until the kernel has buried it. Harmless when it is over."""
        self._kill()
        with contextlib.suppress(TimeoutError):  # stuck in the kernel: nothing more can be done to it
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.wait()
                await self._first_ended()
        self.close()

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in (self._outer, self._first):
            if descriptor is not None:
                os.close(descriptor)
        self._outer = self._first = None

    def _kill(self) -> None:
        for descriptor in (self._first, self._outer):
            if descriptor is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    async def _first_ended(self) -> None:
        """The first process of a pid namespace ends last of all: a pidfd is readable from then on."""
        if self._first is None:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._first, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._first)

    async def _last_words(self) -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                return (await self._process.stderr.read(CHUNK_BYTES)).decode("utf-8", "replace").strip()
        return ""


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None  # it has ended and was reaped already
