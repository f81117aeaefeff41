"""Processes by identity: a pid together with its start time, so that a recycled pid is never taken for ours."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

_POLL_S = 0.05


class Process(msgspec.Struct, frozen=True):
    """A process: pid and start time in clock ticks since boot; 0 ticks means that it was gone already."""

    pid: int
    start_ticks: int


def identify(pid: int) -> Process:
    """The identity of a process that exists now."""
    stat = _stat(pid)
    return Process(pid, int(stat[19]) if stat else 0)


def alive(process: Process) -> bool:
    """Whether this very process still runs; a zombie does not."""
    stat = _stat(process.pid)
    return stat is not None and int(stat[19]) == process.start_ticks and stat[0] != "Z"


def rss_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def send(process: Process, number: signal.Signals) -> None:
    """Signal a process if it is still the same one."""
    if alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return  # it ended between the look and the signal: that is what was wished


async def ended(processes: Sequence[Process], timeout_s: float) -> list[Process]:
    """Wait until all have ended; the ones that still run at the deadline."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        left = [process for process in processes if alive(process)]
        if not left or asyncio.get_running_loop().time() >= deadline:
            return left
        await asyncio.sleep(_POLL_S)


async def stop(processes: Sequence[Process], *, term_s: float, kill_s: float = 5.0) -> list[Process]:
    """TERM, wait, KILL, wait; the ones that not even KILL has ended by then."""
    for process in processes:
        send(process, signal.SIGTERM)
    left = await ended(processes, term_s)
    for process in left:
        send(process, signal.SIGKILL)
    return await ended(left, kill_s) if left else []


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on (the name before them may hold spaces)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
