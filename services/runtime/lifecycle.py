"""Start, ready, drain, stop: the life of one process, with a bound on every step.

    new -> starting -> ready -> draining -> stopping -> stopped

A first SIGTERM or SIGINT (or `stop`) drains softly for at most `drain_s`; a second one (or `kill`) skips what is left
of that. Then owned tasks are cancelled and closed within `grace_s`. A task that crashes, or that somebody cancels
behind our back, ends the process with an exit code that is not 0: an interruption is told apart from a failure by who
asked for it. Should even the stopping hang, `abandon` ends the process.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, Final, Protocol

from contracts.errors import FAILED, OK, Rejected

Hook = Callable[[], Awaitable[None]]
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Phase(Enum):
    """Where a process stands in its life."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Log(Protocol):
    """The part of a logger that is used here."""

    def info(self, event: str, **fields: Any) -> Any:
        """Write one line."""
        ...

    def warning(self, event: str, **fields: Any) -> Any:
        """Write one line."""
        ...

    def error(self, event: str, **fields: Any) -> Any:
        """Write one line."""
        ...


class Lifecycle:
    """Runs one process from start to stop, once. Everything may be called twice; only the first call counts."""

    def __init__(
        self, *, drain_s: float, grace_s: float, log: Log, abandon: Callable[[int], Any] | None = None
    ) -> None:
        self.phase = Phase.NEW
        self.exit_code = OK
        self._drain_s, self._grace_s = drain_s, grace_s
        self._log = log
        self._abandon = os._exit if abandon is None else abandon
        self._stop_asked = asyncio.Event()
        self._hard = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_drain: list[Hook] = []
        self._on_stop: list[Hook] = []
        self._watchdog: threading.Timer | None = None

    def on_drain(self, hook: Hook) -> None:
        """Finish or hand over work at a soft stop. Hooks run one after another, the last registered first."""
        self._on_drain.append(hook)

    def on_stop(self, hook: Hook) -> None:
        """Close something at the end, however it came. The last registered first; each has `grace_s`."""
        self._on_stop.append(hook)

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Own a background task. It may end by itself; if it crashes, the process stops with exit code 1."""
        if self._group is None:
            coro.close()
            raise RuntimeError(f"{name}: a task needs a running life cycle")
        task = self._group.create_task(self._guarded(coro, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self, reason: str = "asked") -> None:
        """Stop softly. Before `run` it makes `run` end at once."""
        if not self._stop_asked.is_set():
            # Stop first, then talk: nothing that a log does may keep a process from ending.
            self._stop_asked.set()
            self._set_watchdog()
            self._log.info("stop_asked", reason=reason, phase=self.phase.value)

    def kill(self, reason: str, exit_code: int) -> None:
        """Stop without draining, with this exit code."""
        if not self._hard.is_set():
            self.exit_code = self.exit_code or exit_code
            self._hard.set()
            self._stop_asked.set()
            self._set_watchdog()
            self._log.warning("hard_stop", reason=reason, phase=self.phase.value, exit_code=exit_code)

    def catch_signals(self) -> None:
        """TERM and INT: the first is soft, the second hard."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

    async def run(self, start: Callable[[], Awaitable[None]]) -> int:
        """Live: call `start`, wait to be stopped, drain, stop. Returns the exit code."""
        if self.phase is not Phase.NEW:
            raise RuntimeError("a life cycle runs once")
        if self._stop_asked.is_set():
            self.phase = Phase.STOPPED
            return self.exit_code
        try:
            await self._live(start)
        finally:
            await self._close()
        return self.exit_code

    async def _live(self, start: Callable[[], Awaitable[None]]) -> None:
        self.phase = Phase.STARTING
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                starting = self.spawn(_as_coroutine(start), "start")
                await _first_of(starting, self._stop_asked)
                if not self._stop_asked.is_set():
                    self.phase = Phase.READY
                    self._log.info("ready")
                await self._stop_asked.wait()
                await _cut(starting, self._grace_s)
                await self._drain()
                self.phase = Phase.STOPPING
                await self._end_tasks()
        except* Exception as crashes:
            # Each was logged with its name where it broke.
            self.exit_code = self.exit_code or _exit_code_of(crashes)
        finally:
            self._group = None

    async def _drain(self) -> None:
        self.phase = Phase.DRAINING
        if self._hard.is_set() or not self._on_drain:
            return
        draining = asyncio.create_task(self._run_drain_hooks(), name="drain")
        try:
            async with asyncio.timeout(self._drain_s):
                await _first_of(draining, self._hard)
        except TimeoutError:
            self._log.warning("drain_cut", after_s=self._drain_s)
        finally:
            await _cut(draining, self._grace_s)

    async def _run_drain_hooks(self) -> None:
        for hook in reversed(self._on_drain):
            try:
                await hook()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._failed("drain_failed", _name_of(hook), RuntimeError("it waited for something that was cancelled"))
            except Exception as error:
                # The others must still hand over their work.
                self._failed("drain_failed", _name_of(hook), error)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=self._grace_s)
            for task in stuck:
                self._log.error("task_does_not_end", task=task.get_name())

    async def _close(self) -> None:
        self.phase = Phase.STOPPING
        self._set_watchdog()
        while self._on_stop:
            hook = self._on_stop.pop()
            try:
                async with asyncio.timeout(self._grace_s):
                    await hook()
            except Exception as error:
                self._failed("stop_failed", _name_of(hook), error)
        self.phase = Phase.STOPPED
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._log.info("stopped", exit_code=self.exit_code)

    async def _guarded(self, coro: Coroutine[Any, Any, Any], name: str) -> Any:
        try:
            return await coro
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling() == 0:
                # Nobody cancelled this task: it awaited something that was cancelled. A TaskGroup would let it end
                # without a word, and the service would go on without its loop.
                stray = RuntimeError(f"{name} was interrupted by something it waited for")
                self._crashed(name, stray)
                raise stray from cancelled
            raise
        except Exception as error:
            self._crashed(name, error)
            raise

    def _crashed(self, name: str, error: Exception) -> None:
        self._failed("task_crashed", name, error)
        # The group now cancels the others; one that does not let go must not keep a broken process alive.
        self._set_watchdog()

    def _failed(self, event: str, name: str, error: Exception) -> None:
        if isinstance(error, Rejected):
            hint = error.detail.get("hint", error.kind.hint)
            self._log.error(event, task=name, code=error.code, reason=error.message, hint=hint)
            self.exit_code = self.exit_code or error.kind.exit_code
        else:
            self._log.error(event, task=name, exc_info=error)
            self.exit_code = self.exit_code or FAILED

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop_asked.is_set():
            self.kill(number.name, 128 + number)
        else:
            self.stop(number.name)

    def _set_watchdog(self) -> None:
        if self._watchdog is not None or self.phase in (Phase.NEW, Phase.STOPPED):
            return
        # A thread, because a loop that is stuck in a C call fires no timer of its own.
        bound_s = self._drain_s + self._grace_s * (3 + len(self._on_stop))
        self._watchdog = threading.Timer(bound_s, self._give_up)
        self._watchdog.daemon = True
        self._watchdog.start()

    def _give_up(self) -> None:
        self._log.error("stop_hangs", phase=self.phase.value)
        self._abandon(self.exit_code or FAILED)


async def _as_coroutine(start: Callable[[], Awaitable[None]]) -> None:
    await start()


async def _first_of(task: asyncio.Task[Any], event: asyncio.Event) -> None:
    """Wait for whichever comes first; the event's waiter never stays behind."""
    waiter = asyncio.create_task(event.wait(), name="event")
    try:
        await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


async def _cut(task: asyncio.Task[Any], within_s: float) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=within_s)


def _name_of(hook: Hook) -> str:
    return getattr(hook, "__qualname__", type(hook).__name__)


def _exit_code_of(crashes: BaseExceptionGroup[BaseException]) -> int:
    for crash in crashes.exceptions:
        if isinstance(crash, Rejected):
            return crash.kind.exit_code
    return FAILED
