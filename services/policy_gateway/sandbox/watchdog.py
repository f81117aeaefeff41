"""Holds the bounds of one box that nothing in the kernel holds: threads that count and kill.

Threads of its own: one for the disk, which may take its time, and one for processes and memory where no control group
holds them, with real-time priority where that can be had: a fork bomb starves everybody else first, the event loop
included.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from services.policy_gateway.sandbox import processes
from services.policy_gateway.sandbox.cgroups import Group
from services.policy_gateway.sandbox.disk import Disk
from services.policy_gateway.sandbox.ledger import Ledger
from services.policy_gateway.sandbox.limits import Limits

COUNTING_INTERVAL_S: Final = 0.01
LOOK_AROUND_INTERVAL_S: Final = 0.25


class Watch(NamedTuple):
    """What the watchdog has to hold, since nothing of the kernel does."""

    memory: bool
    processes: bool
    folders: Sequence[Path]
    ledger: Ledger
    group: Group | None = None
    """Out of memory, version 1 of the groups kills one process, and the rest may wait for it for ever."""


class Watchdog:
    """Watches one box from `start()` to `stop()`; `reason` says which bound it was killed for."""

    def __init__(self, pid: int, pidfd: int, limits: Limits, watch: Watch) -> None:
        self._pid = pid
        self._limits = limits
        self._watch = watch
        self._disk = Disk(pid, watch.folders, limits, watch.ledger)
        self._over = threading.Event()
        self._threads = [self._thread(pidfd, LOOK_AROUND_INTERVAL_S, self._rest)]
        if watch.memory or watch.processes:
            self._threads.append(self._thread(pidfd, COUNTING_INTERVAL_S, self._counted))
        self.reason: str | None = None

    def start(self) -> None:
        """Begin to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """The box is over."""
        self._over.set()

    def _thread(self, pidfd: int, interval_s: float, exceeded: Callable[[], str | None]) -> threading.Thread:
        # The descriptor is the thread's own: it may still look when the box is over.
        arguments = (os.dup(pidfd), interval_s, exceeded)
        return threading.Thread(target=self._run, args=arguments, name=f"box-{self._pid}", daemon=True)

    def _run(self, pidfd: int, interval_s: float, exceeded: Callable[[], str | None]) -> None:
        if interval_s == COUNTING_INTERVAL_S:
            with contextlib.suppress(OSError):  # an ordinary user may not, but then the kernel bounds forks
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        try:
            while not self._over.wait(interval_s):
                if reason := exceeded():
                    self._kill(pidfd, reason)
                    break
            if exceeded == self._rest:
                self._disk.last_look()
        except BaseException:
            # Nobody holds the bounds any more: so the box ends.
            self._kill(pidfd, "watchdog")
            raise
        finally:
            os.close(pidfd)

    def _kill(self, pidfd: int, reason: str) -> None:
        if not self._over.is_set():
            self.reason = self.reason or reason
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _counted(self) -> str | None:
        limits = self._limits
        used = processes.usage(self._pid, limits.processes)
        if self._watch.processes and used.processes > limits.processes:
            return "processes"
        if self._watch.memory and used.memory_bytes > limits.memory_bytes:
            exact = processes.proportional_bytes(self._pid)
            if exact == 0 or exact > limits.memory_bytes:
                return "memory"
        return None

    def _rest(self) -> str | None:
        if self._watch.group is not None and self._watch.group.memory_kills():
            return "memory"
        return "disk" if self._disk.filled() else None
