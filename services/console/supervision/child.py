"""One supervised child process: started in its own session, restarted with back-off, given up when it keeps dying."""

import asyncio
import ctypes
import functools
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from contracts.errors import BAD_CONFIG, USAGE, Rejected
from services.console.processes import Process, identify

RESTARTS_MAX: Final = 5
RESTARTS_WINDOW_S: Final = 60.0
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 5.0
GRACE_S: Final = 30.0
"""Longer than a service takes for its own soft and hard stop (core.drain_s and core.grace_s)."""
_LOG_BYTES_MAX: Final = 10 << 20
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_HOPELESS: Final = frozenset({BAD_CONFIG, USAGE})
"""Exit codes that a restart cannot mend."""


@dataclass(frozen=True)
class ChildSpec:
    """What to start and where its output goes. `grace_s` lies between TERM and KILL."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    grace_s: float = GRACE_S


@dataclass
class Child:
    """A supervised process. `state` is starting, ready, backoff, failed or stopped; `changed` hears of each change."""

    spec: ChildSpec
    changed: Callable[[], None]
    state: str = "stopped"
    reason: str = ""
    http: str | None = None
    restarts: int = 0
    process: Process | None = None
    _handle: asyncio.subprocess.Process | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=RESTARTS_MAX))

    async def run(self) -> None:
        """Keep the process alive until `stop`; returns when it was stopped or given up (state failed)."""
        while not self._stopping.is_set():
            code = await self._live()
            if self._stopping.is_set():
                break
            if self._given_up(code):
                self._become("failed", f"exit code {code}; see {self.spec.log}")
                return
            self._become("backoff", f"exit code {code}; see {self.spec.log}")
            if await self._stopped_within(self._backoff_s()):
                break
            self.restarts += 1
        self._become("stopped", "")

    async def stop(self, *, grace_s: float | None = None) -> None:
        """TERM, wait for the grace time, KILL the whole session; returns when the process has ended."""
        self._stopping.set()
        handle = self._handle
        if handle is None or handle.returncode is not None:
            return
        self._signal(handle, signal.SIGTERM)
        try:
            async with asyncio.timeout(self.spec.grace_s if grace_s is None else grace_s):
                await handle.wait()
        except TimeoutError:
            self._kill(handle)
            await handle.wait()

    def ready(self, http: str | None) -> None:
        """The process answered that it is ready."""
        self.http = http
        if self.state != "ready":
            self._become("ready", "")

    def not_ready(self, reason: str, http: str | None) -> None:
        """The process lives, but says why it is not ready."""
        self.http = http
        if self.state in ("starting", "ready"):
            self._become("starting", reason)

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, in one line."""
        try:
            text = self.spec.log.read_bytes()[-4096:].decode("utf-8", "replace")
        except OSError:
            return ""
        return " | ".join(line.strip() for line in text.strip().splitlines()[-lines:])

    async def _live(self) -> int:
        """One life of the process: start it, wait for its end, give its exit code."""
        try:
            with open_log(self.spec.log) as log:
                handle = await asyncio.create_subprocess_exec(
                    *self.spec.argv,
                    env=dict(self.spec.env),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=functools.partial(_die_with_parent, os.getpid()),
                )
        except OSError as error:
            raise Rejected("missing_dependency", f"cannot start {self.spec.argv[0]}: {error.strerror}") from error
        self._handle, self.process, self.http = handle, identify(handle.pid), None
        self._become("starting", "")
        try:
            return await handle.wait()
        except asyncio.CancelledError:
            self._kill(handle)
            raise
        finally:
            self.http = None

    def _given_up(self, code: int) -> bool:
        now = asyncio.get_running_loop().time()
        self._deaths.append(now)
        too_often = len(self._deaths) == RESTARTS_MAX and now - self._deaths[0] < RESTARTS_WINDOW_S
        # A negative code is a signal: whoever is killed comes back, however often.
        return (too_often and code >= 0) or code in _HOPELESS

    def _backoff_s(self) -> float:
        since = asyncio.get_running_loop().time() - RESTARTS_WINDOW_S
        recent = sum(1 for at in self._deaths if at >= since)
        return float(min(BACKOFF_FIRST_S * 2 ** max(recent - 1, 0), BACKOFF_MAX_S))

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _become(self, state: str, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self.changed()

    @staticmethod
    def _signal(handle: asyncio.subprocess.Process, number: signal.Signals) -> None:
        if handle.returncode is None:
            handle.send_signal(number)

    @staticmethod
    def _kill(handle: asyncio.subprocess.Process) -> None:
        """End the process and everything it started: it leads its own session."""
        try:
            os.killpg(handle.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it has ended already


def open_log(path: Path) -> Any:
    """The log file for appending; a log over 10 MB is moved aside first, one generation is kept."""
    if path.exists() and path.stat().st_size > _LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _die_with_parent(parent: int) -> None:
    """In the child, before exec: TERM reaches it when `htdag up` itself is killed, so nothing is left running."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it was killed before it was asked for
        os._exit(128 + signal.SIGTERM)
