"""Ctrl-C that is not lost: on Python 3.11 a cancellation can be swallowed inside a client library."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

AGAIN_S: Final = 1.0
"""How long a cancelled command has to unwind before it is cancelled once more."""


@contextmanager
def ctrl_c_ends_it() -> Iterator[None]:
    """Inside, Ctrl-C cancels the running task, again and again until it unwinds; it leaves as KeyboardInterrupt."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    before = signal.getsignal(signal.SIGINT)
    pressed, again = False, None

    def cancel() -> None:
        nonlocal pressed, again
        pressed = True
        if task is not None:
            task.cancel()
        if again is not None:
            again.cancel()
        again = loop.call_later(AGAIN_S, cancel)

    loop.add_signal_handler(signal.SIGINT, cancel)
    try:
        yield
    except asyncio.CancelledError:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        if again is not None:
            again.cancel()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
