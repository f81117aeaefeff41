"""How much one box may take, and the part of it that the kernel holds for every process by itself."""

import os
import resource
from typing import Final, NamedTuple


class Limits(NamedTuple):
    """The bounds of one box. `processes` counts threads too, where the kernel counts them."""

    memory_bytes: int = 4 << 30
    processes: int = 256
    processors: int = 2
    file_bytes: int = 2 << 30
    open_files: int = 4096
    shared_memory_bytes: int = 256 << 20
    output_bytes: int = 1 << 20
    disk_free_bytes: int = 512 << 20
    """A box that writes while less than this is free on the disk of a folder it may write is killed."""
    disk_free_entries: int = 10_000
    """The same for files: a file system has only so many."""
    disk_written_bytes: int = 4 << 30
    """By so much one box may make its folders grow; files that have no name any more count too."""
    disk_written_entries: int = 250_000
    shared_memory_entries: int = 50_000
    """Files in /dev/shm: empty ones cost memory too."""
    folders_bytes: int = 16 << 30
    """What the folders of a box, all that is writable there, may hold: else no box starts, and one that runs ends."""
    folders_entries: int = 500_000


DEFAULTS: Final = Limits()


def confine(pid: int, limits: Limits, *, memory_counted: bool) -> None:
    """Set the limits of one process and all that it will start; it must not run yet.

    The number of processes is counted per user namespace and so per box, but never for root: there the watchdog or a
    cgroup holds it. Without a cgroup for memory each process gets at most all of it; the sum is the watchdog's.
    """
    values = {
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_NPROC: limits.processes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 8 << 20,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
    }
    if not memory_counted:
        values[resource.RLIMIT_DATA] = limits.memory_bytes
        # Whoever has to count and kill must be faster than what is counted.
        mine = os.getpriority(os.PRIO_PROCESS, pid)
        os.setpriority(os.PRIO_PROCESS, pid, niceness(mine, root=os.geteuid() == 0))
    for what, value in values.items():
        # An ordinary user can only lower: what the machine allows at most stays the most.
        _, most = resource.prlimit(pid, what)
        bounded = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.prlimit(pid, what, (bounded, bounded))


def niceness(mine: int, *, root: bool) -> int:
    """How nice a box is, at least as nice as it is already: an ordinary user cannot take that back."""
    return max(mine, 19 if root else 5)


def processors_for(turn: int, limits: Limits) -> set[int]:
    """The processors of one box where no cgroup shares them out: each box begins at the next one."""
    mine = sorted(os.sched_getaffinity(0))
    return {mine[(turn * limits.processors + step) % len(mine)] for step in range(limits.processors)}
