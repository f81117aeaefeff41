"""Lines that people type, or that stand in a pipe. Nothing blocks while they are waited for, so Ctrl-C ends the wait.

A thread inside of a read cannot be told to stop, and the end of a command waits for its threads; so the event loop
itself waits until there is something to read.
"""

import asyncio
import os
import stat
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from contracts.errors import Rejected

LINE_BYTES_MAX: Final = 64 << 10
CHUNK_BYTES: Final = 4096


async def ask(prompt: str) -> str:
    """One line, as it was typed; the prompt goes to stderr. Raises Rejected("bad_request") when there is none."""
    sys.stderr.write(f"{prompt}  > ")
    sys.stderr.flush()
    return await _line(_input())


async def ask_password(prompt: str) -> str:
    """A password: not shown on a terminal, one line from a pipe. It never stands on a command line."""
    number = _input()
    if not os.isatty(number):
        return await ask(prompt)
    with _unseen(number):
        return await ask(prompt)


def _input() -> int:
    if sys.stdin is None:  # it was closed by whoever started this
        raise Rejected("bad_request", "there is no input to read from")
    return sys.stdin.fileno()


_ahead: dict[int, bytearray] = {}
"""What a pipe gave beyond the line that was asked for, by descriptor."""


async def _line(number: int) -> str:
    ahead = _ahead.setdefault(number, bytearray())
    ended = False
    while b"\n" not in ahead and not ended:
        if len(ahead) > LINE_BYTES_MAX:
            ahead.clear()
            raise Rejected("too_large", "this line is too long", max=LINE_BYTES_MAX)
        await _readable(number)
        chunk = os.read(number, CHUNK_BYTES)
        ahead += chunk
        ended = not chunk
    if ended and not ahead:
        raise Rejected("bad_request", "the input ended before the conversation did")
    line, _, rest = bytes(ahead).partition(b"\n")
    ahead[:] = rest
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise Rejected("bad_request", "the input is not UTF-8") from error


async def _readable(number: int) -> None:
    """Return when a read does not wait: files never do, terminals and pipes may."""
    if stat.S_ISREG(os.fstat(number).st_mode):
        return
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    try:
        loop.add_reader(number, there.set)
    except PermissionError:  # a device that nobody can wait for, such as /dev/null
        return
    try:
        await there.wait()
    finally:
        loop.remove_reader(number)


@contextmanager
def _unseen(number: int) -> Iterator[None]:
    """Inside, a terminal does not show what is typed."""
    before = termios.tcgetattr(number)
    hidden = [*before]
    hidden[3] &= ~termios.ECHO
    termios.tcsetattr(number, termios.TCSADRAIN, hidden)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
        sys.stderr.write("\n")
