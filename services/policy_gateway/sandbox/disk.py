"""How much a box writes: it may neither fill the disk of its folders nor write without end.

The free space is asked for all the time, which costs nothing; only when it has shrunk by as much as a box may write is
it looked up whose files have grown, for other boxes write to the same disk.
"""

import contextlib
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.policy_gateway.sandbox.limits import Limits

CLOCK_SLACK_S: Final = 2.0
"""File systems stamp times a little late."""
ENTRIES_MAX: Final = 200_000
"""A box that made more files than are worth counting is judged by what was counted."""


class Disk:
    """The writable folders of one box, watched from its start."""

    def __init__(self, folders: Sequence[Path], limits: Limits) -> None:
        self._folders, self._limits = folders, limits
        self._since_s = time.time() - CLOCK_SLACK_S
        self._free = {folder: _free_bytes(folder) for folder in folders}

    def filled(self) -> bool:
        """Whether the box has written more than it may, or hardly anything is left for anybody."""
        shrunk = False
        for folder, before in self._free.items():
            now = _free_bytes(folder)
            if now < self._limits.disk_free_bytes:
                return True
            shrunk = shrunk or before - now > self._limits.disk_written_bytes
        if not shrunk:
            return False
        self._free = {folder: _free_bytes(folder) for folder in self._folders}
        return self._written() > self._limits.disk_written_bytes

    def _written(self) -> int:
        """Bytes of the files that were changed since the start."""
        written = entries = 0
        for top in self._folders:
            for folder, _, names in os.walk(top):
                for name in names:
                    entries += 1
                    with contextlib.suppress(OSError):  # it is gone again
                        found = os.lstat(os.path.join(folder, name))
                        if stat.S_ISREG(found.st_mode) and found.st_mtime >= self._since_s:
                            written += found.st_blocks * 512
                if entries > ENTRIES_MAX:
                    return written
        return written


def _free_bytes(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1 << 62  # it was removed meanwhile: nothing can be written there any more
    return found.f_bavail * found.f_frsize
