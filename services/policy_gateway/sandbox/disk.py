"""How much a box writes: it may neither fill the disk of its folders nor write without end.

What is free is asked for all the time, which costs nothing; only when it has shrunk by as much as a box may write, or
nothing was looked at for long, is it looked up whose files have grown, for others write to the same disk. A box that
holds files where nobody can look is charged with all that the disk has lost meanwhile.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.policy_gateway.sandbox import nameless
from services.policy_gateway.sandbox.ledger import Ledger, free_of, too_much
from services.policy_gateway.sandbox.limits import Limits

CLOCK_SLACK_S: Final = 2.0
"""File systems stamp times a little late."""


class Disk:
    """The writable folders of one box, watched from its start. `pid` is its first process."""

    def __init__(self, pid: int, folders: Sequence[Path], limits: Limits, ledger: Ledger) -> None:
        self._pid, self._folders, self._limits, self._ledger = pid, folders, limits, ledger
        self._since_s = time.time() - CLOCK_SLACK_S
        self._start = self._mark = free_of(folders)
        self._before = ledger.known(folders)

    def filled(self) -> bool:
        """Whether the box has written more than it may, or hardly anything is left for anybody."""
        if not self._folders:
            return False
        limits, now = self._limits, free_of(self._folders)
        if now.bytes < limits.disk_free_bytes or now.entries < limits.disk_free_entries:
            return True
        if _shared_memory_entries(self._pid) > limits.shared_memory_entries:
            return True
        if not (
            self._mark.bytes - now.bytes > limits.disk_written_bytes
            or self._mark.entries - now.entries > limits.disk_written_entries
            or self._ledger.stale(self._folders)
        ):
            return False
        self._mark = now
        return self._exceeded(self._start.bytes - now.bytes)

    def last_look(self) -> None:
        """The box is over: what was not looked at for long is looked at before the next one needs it."""
        if self._folders and self._ledger.stale(self._folders):
            self._ledger.look(self._folders, self._limits)

    def _exceeded(self, lost_bytes: int) -> bool:
        limits = self._limits
        holding = self._ledger.look(self._folders, limits, since_s=self._since_s)
        if too_much(holding, limits):
            return True
        bytes_, entries = holding.fresh_bytes, holding.fresh_entries
        if self._before is not None:
            # What was only touched was there before.
            bytes_ = min(bytes_, max(holding.bytes - self._before.bytes, 0))
            entries = min(entries, max(holding.entries - self._before.entries, 0))
        devices = {os.stat(folder).st_dev for folder in self._folders if folder.exists()}
        held = nameless.held(self._pid, devices)
        bytes_, entries = bytes_ + held.bytes, entries + held.entries
        if lost_bytes > limits.disk_written_bytes >= bytes_ and (holding.closed or nameless.hides(self._pid)):
            return True
        return bytes_ > limits.disk_written_bytes or entries > limits.disk_written_entries


def _shared_memory_entries(pid: int) -> int:
    try:
        found = os.statvfs(f"/proc/{pid}/root/dev/shm")
    except OSError:
        return 0  # it has ended
    return found.f_files - found.f_ffree
