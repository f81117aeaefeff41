"""Files without a name that the processes of a box keep alive: no walk through folders meets them."""

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from services.policy_gateway.sandbox.holding import BLOCK_BYTES
from services.policy_gateway.sandbox.processes import tree

_MEMORY: Final = rb"/dev/shm/|/memfd:|/SYSV|/dev/zero"
_DELETED_MAP: Final = re.compile(rb"^\S+ \S+ \S+ \S+ [1-9]\d* +(?!" + _MEMORY + rb").* \(deleted\)$", re.MULTILINE)
_UNDER_WAY: Final = re.compile(rb"^scm_fds:\s*[1-9]", re.MULTILINE)


class Held(NamedTuple):
    """What files without a name take."""

    bytes: int
    entries: int


def held(root: int, devices: Collection[int]) -> Held:
    """What open files without a name take on these devices."""
    found: dict[tuple[int, int], int] = {}
    for _, about in _open_files(root):
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 0 and about.st_dev in devices:
            found[about.st_dev, about.st_ino] = about.st_blocks * BLOCK_BYTES
    return Held(sum(found.values()), len(found))


def hides(root: int) -> bool:
    """Whether the box has files that cannot be measured: mapped and closed, or under way through a socket."""
    if any(_DELETED_MAP.search(_content(f"/proc/{pid}/maps")) for pid in tree(root)):
        return True
    sockets = (path for path, about in _open_files(root) if stat.S_ISSOCK(about.st_mode))
    return any(_UNDER_WAY.search(_content(path.replace("/fd/", "/fdinfo/"))) for path in sockets)


def _open_files(root: int) -> Iterator[tuple[str, os.stat_result]]:
    for pid in tree(root):
        with contextlib.suppress(OSError):  # it has ended
            for name in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{name}"
                with contextlib.suppress(OSError):
                    yield path, os.stat(path)


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
