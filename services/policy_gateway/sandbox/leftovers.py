"""What a gateway that was killed may leave, and how the next one removes it.

Bubblewrap ends with its parent, but for a few milliseconds while a box is built: a box of that moment waits at its gate
for a byte that nobody will write, or has just passed it.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from services.policy_gateway.sandbox.cgroups import Cgroups


def remove_leftovers(state: Path, cgroups: Cgroups | None) -> int:
    """Kill boxes of this state that nobody waits for, remove groups and scratch folders; how many there were."""
    removed = 0
    for pid in _orphans(f"{state}/etc/passwd".encode()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            removed += 1
    for folder in cgroups.leftovers() if cgroups else ():
        with contextlib.suppress(OSError, ValueError):
            for pid in map(int, (folder / "cgroup.procs").read_text().split()):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            folder.rmdir()
            removed += 1
    for folder in state.glob("selftest-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _orphans(marker: bytes) -> Iterator[int]:
    """First processes of boxes whose outer half is gone: they carry the marker and their parent does not."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or marker not in _arguments(entry):
            continue
        status = _status(entry)
        parent = Path("/proc") / status.get("PPid", "0")
        if len(status.get("NSpid", "").split()) > 1 and marker not in _arguments(parent):
            yield int(entry.name)


def _arguments(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _status(process: Path) -> dict[str, str]:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
