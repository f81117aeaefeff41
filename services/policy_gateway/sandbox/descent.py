"""A walk through a tree of any depth, by descriptors: no path is named, no link followed, few files are open.

Of the folders on the way down only the last ones stay open. On the way back the others are opened again as `..`, and
only if that is still the folder that was left: a program may move folders while they are looked at.
"""

import os
import stat
from types import TracebackType
from typing import Final

OPEN_MAX: Final = 32
"""Folders of one walk that are open at the same time, beside its first."""
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Moved(OSError):
    """A folder on the way down is not above the current one any more: there is no way back."""


class _Level:
    __slots__ = ("descriptor", "identity", "name")

    def __init__(self, name: str, descriptor: int) -> None:
        about = os.fstat(descriptor)
        self.name, self.descriptor, self.identity = name, descriptor, (about.st_dev, about.st_ino)


class Descent:
    """Where a walk stands, from its first folder down. A context manager; raises OSError when it cannot begin."""

    def __init__(self, top: str | os.PathLike[str]) -> None:
        self._levels = [_Level(os.fspath(top), os.open(top, FOLDER))]

    def __enter__(self) -> "Descent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._levels:
            self._close(self._levels.pop())

    @property
    def here(self) -> int:
        """The descriptor of the current folder; it stays the walk's own."""
        return self._levels[-1].descriptor

    @property
    def depth(self) -> int:
        """How many folders are above the current one."""
        return len(self._levels) - 1

    def down(self, name: str) -> None:
        """Go into a folder of the current one. Raises OSError, and stays."""
        self._levels.append(_Level(name, os.open(name, FOLDER, dir_fd=self.here)))
        if self.depth > OPEN_MAX:
            self._close(self._levels[-1 - OPEN_MAX])

    def up(self) -> str:
        """Go back to the folder above, and say by what name the other one was there. Raises Moved, and ends."""
        left, above = self._levels.pop(), self._levels[-1]
        try:
            if above.descriptor < 0:
                above.descriptor = self._above(left, above)
        finally:
            self._close(left)
        return left.name

    def open_up(self, name: str) -> bool:
        """Let the owner into a folder of the current one, if it is ours; whether it was. Raises OSError."""
        folder = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.here)
        try:
            if os.fstat(folder).st_uid != os.geteuid():
                return False
            os.chmod(f"/proc/self/fd/{folder}", stat.S_IRWXU)
            return True
        finally:
            os.close(folder)

    def _above(self, left: _Level, above: _Level) -> int:
        try:
            found = os.open("..", FOLDER, dir_fd=left.descriptor)
        except OSError as why:
            raise Moved(why.errno, "there is no way back") from why
        about = os.fstat(found)
        if (about.st_dev, about.st_ino) != above.identity:
            os.close(found)
            raise Moved("a folder was moved")
        return found

    @staticmethod
    def _close(level: _Level) -> None:
        if level.descriptor >= 0:
            os.close(level.descriptor)
            level.descriptor = -1
