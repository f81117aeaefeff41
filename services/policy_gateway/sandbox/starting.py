"""Starting a program with nothing of ours in its hands: only the descriptors that are named reach it.

The loop's own way of starting programs will not do: uvloop leaves copies of its pipes, and whatever this process itself
has inherited, open in the child. The standard library closes everything else.
"""

import asyncio
import os
import subprocess
from collections.abc import Sequence
from typing import IO, Any, NamedTuple


class Started:
    """A child process and what it says. It is buried by `wait`; its pipes end by themselves, or by `close`."""

    def __init__(self, child: "subprocess.Popen[bytes]", stdout: "_Pipe", stderr: "_Pipe") -> None:
        self._child = child
        self._pipes = (stdout, stderr)
        self.stdout, self.stderr = stdout.reader, stderr.reader

    @property
    def pid(self) -> int:
        """Its process id, as this machine counts."""
        return self._child.pid

    async def wait(self) -> int:
        """Its exit code, negative for a signal, once it has ended."""
        code = self._child.poll()
        if code is not None:
            return code
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        handle = os.pidfd_open(self._child.pid)
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        return self._child.wait()

    def close(self) -> None:
        """Read no more of what it says."""
        for pipe in self._pipes:
            pipe.transport.close()


class _Pipe(NamedTuple):
    reader: asyncio.StreamReader
    transport: asyncio.BaseTransport


async def start(command: Sequence[str], inherited: Sequence[int], *, limit: int) -> Started:
    """Start a program in a session of its own, without environment or input. Raises OSError.

    It is started from this thread, with which it dies: not from one that the loop may end.
    """
    child = subprocess.Popen(  # noqa: ASYNC220  # a vfork, as the loop would do it too
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        pass_fds=tuple(inherited),
        close_fds=True,
        start_new_session=True,
        bufsize=0,
    )
    return Started(child, await _connected(child.stdout, limit), await _connected(child.stderr, limit))


async def _connected(pipe: IO[Any] | None, limit: int) -> _Pipe:
    reader = asyncio.StreamReader(limit=limit)
    # The transport closes itself, and the pipe, at its end: when the last process that holds the other end is gone.
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return _Pipe(reader, transport)
