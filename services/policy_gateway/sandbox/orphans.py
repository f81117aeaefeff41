"""Boxes whose gateway died while they were built, and the program that ends them at once.

Bubblewrap ends with its parent, but for a few milliseconds while a box is built: its outer half dies with the gateway,
and the first process inside waits for ever, for its user map or at its gate. No process can bind its life to that of
another's parent, so one stands by: it reads how many boxes are in the making or at work, and outlives the gateway for
a moment. Only the standard library: it starts in milliseconds, without the gateway's own packages.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BEGUN: Final = b"+"
ENDED: Final = b"-"
STANDS_BY_S: Final = 3.0
"""An outer half may take a while to notice that its gateway is gone."""
PAUSE_S: Final = 0.05


def main() -> None:
    """Read until the gateway is gone. Argument: its state folder."""
    boxes = 0
    while said := os.read(0, 4096):
        boxes += said.count(BEGUN) - said.count(ENDED)
    until_s = time.monotonic() + STANDS_BY_S
    while boxes > 0 and time.monotonic() < until_s:
        end_orphans(sys.argv[1])
        time.sleep(PAUSE_S)


def end_orphans(state: str) -> int:
    """Kill the boxes of this state that nobody waits for; how many there were."""
    ended = 0
    for pid in _orphans(f"{state}/etc/passwd".encode()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            ended += 1
    return ended


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


if __name__ == "__main__":
    main()
