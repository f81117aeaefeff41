"""What ends a command from outside: Ctrl-C, and a reader of its output who has enough (`| head`).

On Python 3.11 a cancellation can be swallowed inside a client library, so it is repeated until the command unwinds. A
pipe that nobody reads any more is noticed when it is closed, not at the next line: that may be minutes away, and it may
be written where an exception is lost.
"""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

AGAIN_S: Final = 1.0
"""How long a cancelled command has to unwind before it is cancelled once more."""


@contextmanager
def ends_when_told() -> Iterator[None]:
    """Inside, Ctrl-C and a closed pipe behind standard output cancel the running task, again and again until it
    unwinds; that leaves as KeyboardInterrupt, or as BrokenPipeError.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    before = signal.getsignal(signal.SIGINT)
    pipe = _pipe()
    told: list[type[BaseException]] = []
    again: asyncio.TimerHandle | None = None

    def cancel(why: type[BaseException]) -> None:
        nonlocal again
        told.append(why)
        if why is BrokenPipeError and pipe is not None:
            loop.remove_reader(pipe)
        if task is not None:
            task.cancel()
        if again is not None:
            again.cancel()
        again = loop.call_later(AGAIN_S, cancel, why)

    loop.add_signal_handler(signal.SIGINT, cancel, KeyboardInterrupt)
    if pipe is not None:
        # A pipe that is written to becomes "readable" for one reason only: its other end is closed.
        loop.add_reader(pipe, cancel, BrokenPipeError)
    try:
        yield
    except asyncio.CancelledError:
        if told:
            raise told[0] from None
        raise
    finally:
        if again is not None:
            again.cancel()
        if pipe is not None:
            loop.remove_reader(pipe)
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def unwind_when_ended() -> None:
    """TERM and a closed terminal unwind like Ctrl-C: for commands that have something to end, and a folder to remove.

    Whoever has HUP ignored (`nohup`) goes on.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task is not None and signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, task.cancel)


def _pipe() -> int | None:
    """The descriptor of standard output when it is a pipe."""
    try:
        number = sys.stdout.fileno()
        return number if stat.S_ISFIFO(os.fstat(number).st_mode) else None
    except (OSError, ValueError, AttributeError):
        return None
