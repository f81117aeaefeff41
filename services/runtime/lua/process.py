"""One Lua process seen from the service: start, one exchange at a time, kill."""

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Final

from services.runtime.child import Child, start

REPLY_BYTES_MAX: Final = (4 << 20) + (64 << 10)
READY_TIMEOUT_S: Final = 10.0
END_TIMEOUT_S: Final = 5.0


class ProcessDied(Exception):
    """The process ended, or said something that is no reply, before it answered."""


class LuaProcess:
    """A child that leads its own session and shares only two pipes with us."""

    def __init__(self, child: Child) -> None:
        if child.stdin is None:
            raise ValueError("a Lua process needs both pipes")
        self._child = child
        self._requests = child.stdin
        self._replies = child.stdout
        self._silent = asyncio.Event()  # set while no exchange is in progress
        self._silent.set()
        self.killed = False  # True from our own SIGKILL on, also while the end is not known yet

    @classmethod
    async def spawn(cls, command: Sequence[str]) -> "LuaProcess":
        """Start the command with an empty environment; raises OSError when it cannot be started."""
        return cls(await start(command, limit=REPLY_BYTES_MAX, stdin=True, stderr=False))

    @property
    def pid(self) -> int:
        """The process id; in bubblewrap, that of bubblewrap, with which everything inside ends."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """False from the moment the end of the process is known."""
        return self._child.code is None

    async def ready(self) -> bool:
        """Wait for the first line of the program; False when it does not come."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return await self.exchange(b"") == b'{"ok":"ready"}\n'
        except (ProcessDied, TimeoutError):
            return False

    async def exchange(self, request: bytes) -> bytes:
        """Send one request line and return the reply line; the caller holds the deadline. Raises ProcessDied."""
        self._silent.clear()
        try:
            self._requests.write(request)
            await self._requests.drain()
            reply = await self._replies.readline()
        except (OSError, ValueError) as why:  # a broken pipe; a line beyond the limit
            raise ProcessDied(type(why).__name__) from why
        finally:
            self._silent.set()
        if not reply.endswith(b"\n"):
            raise ProcessDied("it closed its pipe")
        return reply

    def kill(self) -> None:
        """SIGKILL the whole group; harmless when it is over."""
        self.killed = True
        if self.alive:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # it ended by itself a moment ago

    async def exited(self) -> None:
        """Wait for the end of the process."""
        await self._child.wait()

    async def ended(self) -> None:
        """Wait until the process is over and nothing inside its box holds our pipe any more."""
        await self._child.wait()
        self._requests.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._silent.wait()
                while await self._replies.read(1 << 16):
                    continue
        except TimeoutError:
            return  # killed, yet stuck in the kernel: nothing more can be done to it
        finally:
            self._child.close()
