"""How much folders hold: by blocks, which sparse and reserved files cannot disguise, and by entries, folders included.

A program may make a tree hard to look at: too deep to be named (then it counts as too much), or closed to its own owner
(then it is said so, and `opening` opens it: what cannot be counted cannot be bounded).
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

BLOCK_BYTES: Final = 512
BEYOND: Final = 1 << 62


class Holding(NamedTuple):
    """What folders hold, and how much of it was made or changed since some time."""

    bytes: int = 0
    entries: int = 0
    fresh_bytes: int = 0
    fresh_entries: int = 0
    closed: bool = False
    """Some folder could not be looked into."""
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
    if looked.too_deep:
        return Holding(size, BEYOND, fresh_size, BEYOND, looked.closed, whole=False)
    return Holding(size, entries, fresh_size, fresh_entries, looked.closed)


class _Look:
    """One look; a file of several names is met once."""

    def __init__(self, folders: Sequence[Path], opening: bool) -> None:
        self.closed = self.too_deep = False
        self._folders, self._opening = folders, opening
        self._met: set[tuple[int, int]] = set()

    def below(self) -> Iterator[os.stat_result]:
        """Each file and folder, told by its status."""
        open_ = [str(folder) for folder in self._folders]
        while open_ and not self.too_deep:
            at = open_.pop()
            try:
                with self._listed(at) as entries:
                    for entry in entries:
                        about = self._about(entry)
                        if about is None:
                            continue
                        yield about
                        if stat.S_ISDIR(about.st_mode):
                            open_.append(entry.path)
            except OSError as why:
                self._missed(why)

    def _listed(self, at: str) -> "os._ScandirIterator[str]":
        try:
            return os.scandir(at)
        except PermissionError:
            if not (self._opening and self._opened(at)):
                raise
            return os.scandir(at)

    def _opened(self, at: str) -> bool:
        """Let the owner in; only what really stands below one of the folders, whatever the path leads to by now."""
        folder = os.open(at, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            place = Path(f"/proc/self/fd/{folder}")
            mine = os.fstat(folder).st_uid == os.geteuid()
            if not mine or not any(place.readlink().is_relative_to(top.resolve()) for top in self._folders):
                return False
            place.chmod(0o700)
            return True
        finally:
            os.close(folder)

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
        if why.errno == errno.ENAMETOOLONG:
            self.too_deep = True
        elif why.errno == errno.EACCES:
            self.closed = True
