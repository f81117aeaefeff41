"""How much a box writes: it may neither fill the disk of its folders nor write without end.

What the box itself holds decides: it is looked at every second or, where looking is dear, for a twentieth of the time.
What is free is asked for all the time, which costs nothing, and only hastens the next look: others write to the same
disk, and others free what they held there. A box that holds files where nobody can look is charged with all that the
disk has lost since it was emptiest.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.policy_gateway.sandbox import nameless
from services.policy_gateway.sandbox.holding import Holding
from services.policy_gateway.sandbox.ledger import Free, Ledger, free_of, too_much
from services.policy_gateway.sandbox.limits import Limits

CLOCK_SLACK_S: Final = 2.0
"""File systems stamp times a little late."""
LOOK_EVERY_S: Final = 1.0
LOOK_COST_TIMES: Final = 20
"""After a look, nothing is looked at for so many times as long as it took; but when the disk shrinks meanwhile."""
ROOM_BYTES_MIN: Final = 64 << 20
ROOM_ENTRIES_MIN: Final = 1_000
"""The disk has to lose at least so much before the next look is hastened: others write, too."""


class Disk:
    """The writable folders of one box, watched from its start. `pid` is its first process."""

    def __init__(self, pid: int, folders: Sequence[Path], limits: Limits, ledger: Ledger) -> None:
        self._pid, self._folders, self._limits, self._ledger = pid, folders, limits, ledger
        self._since_s = time.time() - CLOCK_SLACK_S
        self._most = self._mark = free_of(folders)
        self._look_at_s = self._hasten_at_s = time.monotonic()
        self._room = Free(limits.disk_written_bytes, limits.disk_written_entries)
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
        # Space that others free makes room for more: both marks rise with it, and shrinking is told from there.
        self._most, self._mark = _larger(self._most, now), _larger(self._mark, now)
        began_s = time.monotonic()
        shrank = (
            self._mark.bytes - now.bytes > self._room.bytes or self._mark.entries - now.entries > self._room.entries
        )
        if began_s < (self._hasten_at_s if shrank else self._look_at_s):
            return False
        self._mark = now
        exceeded = self._exceeded(self._most.bytes - now.bytes)
        ended_s = time.monotonic()
        took_s = ended_s - began_s
        self._hasten_at_s, self._look_at_s = ended_s + took_s, ended_s + max(LOOK_EVERY_S, LOOK_COST_TIMES * took_s)
        return exceeded

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
            # What was only touched was there before. What is remembered may be more than there really was, for others
            # delete too: so it counts from when the folders held least.
            self._before = _smaller(self._before, holding)
            bytes_ = min(bytes_, holding.bytes - self._before.bytes)
            entries = min(entries, holding.entries - self._before.entries)
        devices = {os.stat(folder).st_dev for folder in self._folders if folder.exists()}
        held = nameless.held(self._pid, devices)
        bytes_, entries = bytes_ + held.bytes, entries + held.entries
        if lost_bytes > limits.disk_written_bytes >= bytes_ and (holding.closed or nameless.hides(self._pid)):
            return True
        self._room = Free(
            max(limits.disk_written_bytes - bytes_, ROOM_BYTES_MIN),
            max(limits.disk_written_entries - entries, ROOM_ENTRIES_MIN),
        )
        return bytes_ > limits.disk_written_bytes or entries > limits.disk_written_entries


def _larger(one: Free, other: Free) -> Free:
    return Free(max(one.bytes, other.bytes), max(one.entries, other.entries))


def _smaller(one: Holding, other: Holding) -> Holding:
    return Holding(min(one.bytes, other.bytes), min(one.entries, other.entries))


def _shared_memory_entries(pid: int) -> int:
    try:
        found = os.statvfs(f"/proc/{pid}/root/dev/shm")
    except OSError:
        return 0  # it has ended
    return found.f_files - found.f_ffree
