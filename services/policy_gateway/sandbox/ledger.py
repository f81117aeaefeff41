"""What the writable folders of boxes hold, remembered: looking costs as much as there is, and most calls add nothing.

Looked at before a call only when nothing is known, when it was too much, or when the disk has lost a part of what is
still free to be filled or gained a part of what a box may write; now and again beside a call that runs.
"""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.sandbox.emptying import empty
from services.policy_gateway.sandbox.holding import Holding, measure
from services.policy_gateway.sandbox.limits import Limits

KNOWN_S: Final = 30.0
COST_TIMES: Final = 50
"""For so many times as long as a look took, another one is not worth it."""
PART: Final = 4
"""A new look is due when the disk has lost this part of what the folders may still take."""
FOLDERS_MAX: Final = 1_000
BEYOND: Final = 1 << 62


class Free(NamedTuple):
    """What a file system can still take."""

    bytes: int
    entries: int


class _Known(NamedTuple):
    holding: Holding
    free: Free
    until_s: float


class Ledger:
    """For all boxes of one gateway; from any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, ...], _Known] = {}
        self._working: Counter[Path] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def working_in(self, folders: Sequence[Path]) -> Iterator[None]:
        """As long as this lasts, a box works in the folders: nothing there is taken away under its feet."""
        with self._lock:
            self._working.update(folders)
        try:
            yield
        finally:
            with self._lock:
                self._working.subtract(folders)
                self._working += Counter()  # those that are used by nobody are forgotten

    def check(self, folders: Sequence[Path], limits: Limits, shown: str, *, tmp: Path | None = None) -> None:
        """Raise Rejected("workspace_full") when the folders hold more than they may. May take its time.

        `tmp` is that one of them which only holds what can be done without: it is emptied first, unless a box works
        there. Else nobody could work in the workspace any more, not even to remove what fills it.
        """
        known = self._known.get(tuple(folders))
        holding = known.holding if known is not None else Holding(whole=False)
        if known is None or too_much(holding, limits) or holding.closed or _moved(known, folders, limits):
            holding = self.look(folders, limits, opening=holding.closed)
        if too_much(holding, limits) and tmp is not None and not self._working[tmp]:
            empty(tmp)
            holding = self.look(folders, limits, opening=True)
        if too_much(holding, limits):
            said = "at least " if not holding.whole else ""
            message = f"{shown} holds more than it may: {said}{_told(holding)}"
            raise Rejected("workspace_full", message, bytes_max=limits.folders_bytes, files_max=limits.folders_entries)

    def look(self, folders: Sequence[Path], limits: Limits, *, since_s: float = 0.0, opening: bool = False) -> Holding:
        """Measure the folders now, and remember it."""
        free, began_s = free_of(folders), time.monotonic()
        holding = measure(
            folders,
            since_s=since_s,
            bytes_max=limits.folders_bytes,
            entries_max=limits.folders_entries,
            opening=opening,
        )
        now_s = time.monotonic()
        self._keep(folders, _Known(holding, free, now_s + max(KNOWN_S, COST_TIMES * (now_s - began_s))))
        return holding

    def known(self, folders: Sequence[Path]) -> Holding | None:
        """What was seen last."""
        known = self._known.get(tuple(folders))
        return known.holding if known is not None else None

    def stale(self, folders: Sequence[Path]) -> bool:
        """Whether the folders are worth another look, even if nothing hints at a change."""
        known = self._known.get(tuple(folders))
        return known is None or time.monotonic() > known.until_s

    def add(self, folders: Sequence[Path], size: int) -> None:
        """A file was written there by the gateway itself."""
        known = self._known.get(tuple(folders))
        if known is not None:
            more = known.holding._replace(bytes=known.holding.bytes + size, entries=known.holding.entries + 1)
            self._keep(folders, known._replace(holding=more))

    def _keep(self, folders: Sequence[Path], known: _Known) -> None:
        with self._lock:
            if len(self._known) > FOLDERS_MAX:
                self._known.clear()
            self._known[tuple(folders)] = known


def too_much(holding: Holding, limits: Limits) -> bool:
    """Whether folders hold more than they may."""
    over = holding.bytes > limits.folders_bytes or holding.entries > limits.folders_entries
    return over or not holding.whole


def free_of(folders: Sequence[Path]) -> Free:
    """What the fullest file system of the folders can still take."""
    bytes_, entries = BEYOND, BEYOND
    for folder in folders:
        try:
            found = os.statvfs(folder)
        except OSError:
            continue  # it was removed meanwhile: nothing can be written there any more
        bytes_ = min(bytes_, found.f_bavail * found.f_frsize)
        # Some file systems do not count files, and say 0.
        entries = min(entries, found.f_favail if found.f_files else BEYOND)
    return Free(bytes_, entries)


def _moved(known: _Known, folders: Sequence[Path], limits: Limits) -> bool:
    """Whether the disk has lost or gained so much that what is known may be far from the truth."""
    now = free_of(folders)
    bytes_left = limits.folders_bytes - known.holding.bytes
    entries_left = limits.folders_entries - known.holding.entries
    return (
        known.free.bytes - now.bytes > bytes_left // PART
        or known.free.entries - now.entries > entries_left // PART
        or now.bytes - known.free.bytes > limits.disk_written_bytes // PART
        or now.entries - known.free.entries > limits.disk_written_entries // PART
    )


def _told(holding: Holding) -> str:
    return f"{holding.entries} files, {holding.bytes} bytes"
