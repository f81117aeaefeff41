"""Removes what is in a folder, however deep and whoever still moves things there: what cannot be removed stays."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from services.policy_gateway.sandbox.descent import Descent, Moved

TRIES_MAX: Final = 3
"""Where folders are moved meanwhile, it begins again; each time there is less."""
ENTRIES_MAX: Final = 2_000_000


def empty(folder: Path) -> int:
    """Remove all that is in the folder, links as links, and say how much that was. The folder itself stays."""
    emptied = _Emptied()
    for _ in range(TRIES_MAX):
        with contextlib.suppress(Moved), Descent(folder) as descent:
            emptied.below(descent)
            break
    return emptied.removed


class _Emptied:
    def __init__(self) -> None:
        self.removed = 0

    def below(self, descent: Descent) -> None:
        waiting = [self._cleared(descent)]
        while self.removed < ENTRIES_MAX:
            if waiting[-1]:
                if self._entered(descent, waiting[-1].pop()):
                    waiting.append(self._cleared(descent))
            elif descent.depth:
                waiting.pop()
                name = descent.up()
                with contextlib.suppress(OSError):  # not empty: something came to it, or could not be removed
                    os.rmdir(name, dir_fd=descent.here)
                    self.removed += 1
            else:
                return

    def _cleared(self, descent: Descent) -> list[str]:
        """Remove what is no folder from the current one; the names of its folders."""
        if descent.depth:
            with contextlib.suppress(OSError):  # closed by its owner, who may open it again; else it stays
                os.fchmod(descent.here, stat.S_IRWXU)
        folders: list[str] = []
        for name in os.listdir(descent.here):
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.stat(name, dir_fd=descent.here, follow_symlinks=False).st_mode):
                    folders.append(name)
                else:
                    os.unlink(name, dir_fd=descent.here)
                    self.removed += 1
        return folders

    @staticmethod
    def _entered(descent: Descent, name: str) -> bool:
        try:
            try:
                descent.down(name)
            except PermissionError:
                if not descent.open_up(name):
                    return False
                descent.down(name)
        except OSError:
            return False
        return True
