"""Starting a program with nothing of ours in its hands: only the descriptors that are named reach it.

The loop's own way of starting programs will not do: uvloop leaves copies of its pipes, and whatever this process itself
has inherited, open in the child. The standard library closes everything else.
"""

import asyncio
import os
import subprocess
from collections.abc import Sequence
from typing import IO, Any, NamedTuple


class Child:
    """A child process and what it says. It is buried by `wait`; its pipes end by themselves, or by `close`.

    `stdin` is None, and `stderr` at its end, where the child was started without them.
    """

    def __init__(
        self,
        child: "subprocess.Popen[bytes]",
        stdin: asyncio.StreamWriter | None,
        stdout: "_Pipe",
        stderr: "_Pipe | None",
    ) -> None:
        self._child = child
        self._pipes = [pipe for pipe in (stdout, stderr) if pipe is not None]
        self.stdin, self.stdout = stdin, stdout.reader
        self.stderr = _nothing() if stderr is None else stderr.reader

    @property
    def pid(self) -> int:
        """Its process id, as this machine counts."""
        return self._child.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._child.poll()

    async def wait(self) -> int:
        """Its exit code, negative for a signal, once it has ended."""
        code = self.code
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
        """Tell it no more, and read no more of what it says."""
        if self.stdin is not None:
            self.stdin.close()
        for pipe in self._pipes:
            pipe.transport.close()


class _Pipe(NamedTuple):
    reader: asyncio.StreamReader
    transport: asyncio.BaseTransport


async def start(
    command: Sequence[str],
    *,
    limit: int,
    inherited: Sequence[int] = (),
    stdin: bool = False,
    stderr: bool = True,
    umask: int = -1,
) -> Child:
    """Start a program in a session of its own, without environment. Raises OSError.

    `umask` -1 is our own. `limit` is that of the readers. Without `stdin` it reads nothing, without `stderr` what it
    says there is lost. It is started from this thread, with which it dies: not from one that the loop may end.
    """
    child = subprocess.Popen(  # noqa: ASYNC220  # a vfork, as the loop would do it too
        command,
        umask=umask,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if stderr else subprocess.DEVNULL,
        env={},
        cwd="/",
        pass_fds=tuple(inherited),
        close_fds=True,
        start_new_session=True,
        bufsize=0,
    )
    writer, out, err = None, None, None
    try:
        writer = await _written(child.stdin) if stdin else None
        out = await _read(child.stdout, limit)
        err = await _read(child.stderr, limit) if stderr else None
        return Child(child, writer, out, err)
    except BaseException:  # whoever wanted it has given up: nobody else knows of it
        child.kill()
        child.wait()
        for transport in (writer, out and out.transport, err and err.transport):
            if transport is not None:
                transport.close()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        raise


async def _read(pipe: IO[Any] | None, limit: int) -> _Pipe:
    reader = asyncio.StreamReader(limit=limit)
    # The transport closes itself, and the pipe, at its end: when the last process that holds the other end is gone.
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return _Pipe(reader, transport)


async def _written(pipe: IO[Any] | None) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    # A protocol for readers serves: what a writer needs of it is its flow control.
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.StreamReaderProtocol(_nothing()), pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)


def _nothing() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_eof()
    return reader
