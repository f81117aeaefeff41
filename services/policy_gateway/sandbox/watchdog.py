"""Holds the bounds of one box that nothing in the kernel holds: a thread that counts and kills.

A thread of its own, and with real-time priority where that can be had: a fork bomb starves everybody else first, the
event loop included.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from services.policy_gateway.sandbox import processes
from services.policy_gateway.sandbox.cgroups import Group
from services.policy_gateway.sandbox.disk import Disk
from services.policy_gateway.sandbox.limits import Limits

COUNTING_INTERVAL_S: Final = 0.01
LOOK_AROUND_INTERVAL_S: Final = 0.25
COUNTS_PER_LOOK_AROUND: Final = 25


class Watch(NamedTuple):
    """What the watchdog has to hold, since nothing of the kernel does."""

    memory: bool
    processes: bool
    folders: Sequence[Path]
    group: Group | None = None
    """Out of memory, version 1 of the groups kills one process, and the rest may wait for it for ever."""


class Watchdog:
    """Watches one box from `start()` to `stop()`; `reason` says which bound it was killed for."""

    def __init__(self, pid: int, pidfd: int, limits: Limits, watch: Watch) -> None:
        self._pid = pid
        self._pidfd = os.dup(pidfd)  # the thread's own: it may still look when the box is over
        self._limits = limits
        self._watch = watch
        self._disk = Disk(watch.folders, limits)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"box-{pid}", daemon=True)
        self.reason: str | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """The box is over."""
        self._over.set()

    def _run(self) -> None:
        counting = self._watch.memory or self._watch.processes
        if counting:
            with contextlib.suppress(OSError):  # an ordinary user may not, but then the kernel bounds forks
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        interval_s, looks = COUNTING_INTERVAL_S if counting else LOOK_AROUND_INTERVAL_S, 0
        try:
            while not self._over.wait(interval_s):
                looks += 1
                self.reason = self._exceeded(counting, looks)
                if self.reason:
                    self._kill()
                    return
        except BaseException:
            # Nobody holds the bounds any more: so the box ends.
            self.reason = "watchdog"
            self._kill()
            raise
        finally:
            os.close(self._pidfd)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _exceeded(self, counting: bool, looks: int) -> str | None:
        """The bound that the box has broken, if it has."""
        reason = self._counted() if counting else None
        if reason is None and not (counting and looks % COUNTS_PER_LOOK_AROUND):
            reason = self._rest()
        return reason

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
