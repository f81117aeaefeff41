"""What a gateway that was killed may leave, and how the next one removes it.

Its boxes are ended by whoever stands by for it (orphans.py), unless that was killed, too.
"""

import contextlib
import os
import shutil
import signal
from pathlib import Path

from services.policy_gateway.sandbox.cgroups import Cgroups
from services.policy_gateway.sandbox.orphans import end_orphans


def remove_leftovers(state: Path, cgroups: Cgroups | None) -> int:
    """Kill boxes of this state that nobody waits for, remove groups and scratch folders; how many there were."""
    removed = end_orphans(str(state))
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
