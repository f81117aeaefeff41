"""Boxes end with their gateway whatever the moment: a process of its own is told of each, and outlives the gateway."""

import contextlib
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.policy_gateway.sandbox import orphans

END_S: Final = 1.0


class Warden:
    """Starts it at the first box, and anew when it is gone. `state` tells the boxes of this gateway's home."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None
        self._boxes = 0

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """A box is begun and ended within."""
        self._boxes += 1
        if self._process is None or self._process.poll() is not None:
            self._start()
        else:
            self._say(orphans.BEGUN)
        try:
            yield
        finally:
            self._boxes -= 1
            self._say(orphans.ENDED)

    def _start(self) -> None:
        """Raises nothing: a box whose warden cannot be started is swept by the next gateway, as those before it."""
        self._process = None
        with contextlib.suppress(OSError):
            # A session of its own: what ends the group of the gateway must not end it as well.
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(orphans.__file__), str(self._state)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                close_fds=True,
                start_new_session=True,
                bufsize=0,
            )
            self._process = process
            weakref.finalize(self, _end, process)
            assert process.stdin is not None
            os.set_blocking(process.stdin.fileno(), False)
            self._say(orphans.BEGUN * self._boxes)

    def _say(self, word: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it is gone, or stopped: the next box looks after that
                self._process.stdin.write(word)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """It has nothing to wait for by now."""
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
