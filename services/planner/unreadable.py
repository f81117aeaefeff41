"""Stored records that cannot be taken in: each reader tells one once, and goes on behind it.

One record that a broken disk, another version or a stranger wrote must stop neither the planner nor what it shows.
An aggregate whose own log is unreadable still refuses every command (`poison`): only reading goes on.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

from services.runtime.event_store import Recorded
from services.runtime.lifecycle import Log

T = TypeVar("T")

TOLD_MAX: Final = 10_000
"""Records that are remembered as told; a reader that forgets its fold meets them again."""


class Unreadable:
    """The edge between the log and everything that the planner reads from it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._told: OrderedDict[tuple[str, str, int], None] = OrderedDict()

    def take(self, reader: str, take: Callable[[Recorded], T], record: Recorded) -> T | None:
        """What `take` makes of the record; None when it can make nothing of it, which is logged once."""
        try:
            return take(record)
        except Exception as error:  # whatever bytes can do to code: the log says which record and why
            self._tell(reader, record, error)
            return None

    def _tell(self, reader: str, record: Recorded, error: Exception) -> None:
        key = (reader, record.subject, record.seq)
        if key in self._told:
            return
        self._told[key] = None
        if len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)
        reason = f"{type(error).__name__}: {error}"[:500]
        self._log.error("record_unreadable", reader=reader, subject=record.subject, seq=record.seq, reason=reason)
