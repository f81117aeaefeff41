"""The processes of one box as the host's /proc shows them.

A process chooses its own name, any bytes, and /proc shows it as it is: so files are read as bytes and split where the
kernel ends a line and nowhere else, or a name could be read as a number of its own.
"""

import os
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """What a box takes at this moment."""

    processes: int
    memory_bytes: int


def tree(root: int, most: int = 1 << 16) -> list[int]:
    """The process and all below it; orphans of a pid namespace belong to its first process, so none is missed.

    No more than `most` and a few are listed: a fork bomb is faster than whoever counts it to its end.
    """
    found: list[int] = []
    open_ = [root]
    while open_ and len(found) + len(open_) <= most:
        pid = open_.pop()
        found.append(pid)
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue  # it has ended
        for thread in threads:
            open_ += map(int, _words(f"/proc/{pid}/task/{thread}/children"))
    return found + open_


def usage(root: int, most: int) -> Usage:
    """Processes with their threads, and the memory they hold alone or share; shared pages count once per process.

    Beyond `most` processes nothing but their number is of interest.
    """
    processes, kibibytes = 0, 0
    pids = tree(root, most)
    if len(pids) > most:
        return Usage(len(pids), 0)
    for pid in pids:
        for line in _lines(f"/proc/{pid}/status"):
            if line.startswith((b"RssAnon:", b"RssShmem:")):
                kibibytes += int(line.split()[1])
            elif line.startswith(b"Threads:"):
                processes += int(line.split()[1])
    return Usage(processes, kibibytes << 10)


def proportional_bytes(root: int) -> int:
    """The memory of the box with every shared page counted once; dearer to learn. 0 where it may not be read."""
    kibibytes = 0
    for pid in tree(root):
        for line in _lines(f"/proc/{pid}/smaps_rollup"):
            if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
                kibibytes += int(line.split()[1])
    return kibibytes << 10


def _lines(path: str) -> list[bytes]:
    return _content(path).split(b"\n")


def _words(path: str) -> list[bytes]:
    return _content(path).split()


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
