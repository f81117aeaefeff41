"""How much folders hold: by blocks, which sparse and reserved files cannot disguise, and by entries, folders included.

A program may make a tree hard to look at: too deep to be named (so nothing is named), or closed to its own owner (then
it is said so, and `opening` opens it: what cannot be counted cannot be bounded).
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from services.policy_gateway.sandbox.descent import Descent, Moved

BLOCK_BYTES: Final = 512


class Holding(NamedTuple):
    """What folders hold, and how much of it was made or changed since some time."""

    bytes: int = 0
    entries: int = 0
    fresh_bytes: int = 0
    fresh_entries: int = 0
    closed: bool = False
    """Some folder could not be looked into, or was moved while it was looked at."""
    whole: bool = True
    """False: it was enough to know that it is too much."""


def measure(
    folders: Sequence[Path], *, since_s: float = 0.0, bytes_max: int, entries_max: int, opening: bool = False
) -> Holding:
    """Look at everything below the folders, until more than the given bounds was found.

    Since when something is as it is tells its ctime, which programs cannot set.
    """
    size = entries = fresh_size = fresh_entries = 0
    looked = _Look(folders, opening)
    for about in looked.below():
        used = about.st_blocks * BLOCK_BYTES
        size, entries = size + used, entries + 1
        if about.st_ctime >= since_s:
            fresh_size, fresh_entries = fresh_size + used, fresh_entries + 1
        if size > bytes_max or entries > entries_max:
            return Holding(size, entries, fresh_size, fresh_entries, looked.closed, whole=False)
    return Holding(size, entries, fresh_size, fresh_entries, looked.closed)


class _Look:
    """One look; a file of several names is met once."""

    def __init__(self, folders: Sequence[Path], opening: bool) -> None:
        self.closed = False
        self._folders, self._opening = folders, opening
        self._met: set[tuple[int, int]] = set()

    def below(self) -> Iterator[os.stat_result]:
        """Each file and folder, told by its status."""
        for folder in self._folders:
            try:
                with Descent(folder) as descent:
                    yield from self._walk(descent)
            except OSError as why:
                self._missed(why)

    def _walk(self, descent: Descent) -> Iterator[os.stat_result]:
        waiting: list[list[str]] = []
        yield from self._listed(descent, waiting)
        while True:
            if waiting[-1]:
                if self._entered(descent, waiting[-1].pop()):
                    yield from self._listed(descent, waiting)
            elif descent.depth:
                waiting.pop()
                descent.up()
            else:
                return

    def _listed(self, descent: Descent, waiting: list[list[str]]) -> Iterator[os.stat_result]:
        """What is in the current folder; the folders in it wait for their turn."""
        folders: list[str] = []
        waiting.append(folders)
        try:
            with os.scandir(descent.here) as entries:
                for entry in entries:
                    about = self._about(entry)
                    if about is None:
                        continue
                    yield about
                    if stat.S_ISDIR(about.st_mode):
                        folders.append(entry.name)
        except OSError as why:
            self._missed(why)

    def _entered(self, descent: Descent, name: str) -> bool:
        try:
            try:
                descent.down(name)
            except PermissionError:
                if not (self._opening and descent.open_up(name)):
                    raise
                descent.down(name)
        except OSError as why:
            self._missed(why)
            return False
        return True

    def _about(self, entry: "os.DirEntry[str]") -> os.stat_result | None:
        try:
            about = entry.stat(follow_symlinks=False)
        except OSError as why:
            self._missed(why)
            return None
        if about.st_nlink > 1 and not stat.S_ISDIR(about.st_mode):
            name = (about.st_dev, about.st_ino)
            if name in self._met:
                return None
            self._met.add(name)
        return about

    def _missed(self, why: OSError) -> None:
        """What is gone meanwhile does not count; what could not be looked at is remembered."""
        if isinstance(why, Moved) or why.errno in (errno.EACCES, errno.EMFILE, errno.ENFILE):
            self.closed = True
