"""Read models of single aggregates: a fold of one log that is brought up to date by each read.

A read asks the broker only for what is new since the last one, so it always sees what was committed before it began,
whichever process committed it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Final, Generic, Protocol, TypeVar

from services.runtime.event_store import Recorded

ENTRIES_MAX: Final = 256
WEIGHT_MAX: Final = 200_000


class Fold(Protocol):
    """What a log is folded into."""

    def take(self, record: Recorded) -> None:
        """Take in one stored commit."""
        ...

    @property
    def weight(self) -> int:
        """How much it holds, in the unit of WEIGHT_MAX: tasks."""
        ...


F = TypeVar("F", bound=Fold)


class _Entry(Generic[F]):
    def __init__(self, fold: F) -> None:
        self.fold = fold
        self.seq = 0
        self.lock = asyncio.Lock()


class FoldedLog(Generic[F]):
    """The folds of many logs, of which the least used are forgotten and read again when wanted.

    `take` gives one record to a fold and never fails: what stands behind an unreadable record is wanted as well.
    """

    def __init__(
        self, history: Callable[[str, int], AsyncIterator[Recorded]], initial: Callable[[], F],
        take: Callable[[F, Recorded], object], *, entries_max: int = ENTRIES_MAX, weight_max: int = WEIGHT_MAX,
    ) -> None:  # fmt: skip
        self._history = history
        self._initial = initial
        self._take = take
        self._entries_max, self._weight_max = entries_max, weight_max
        self._entries: OrderedDict[str, _Entry[F]] = OrderedDict()

    async def get(self, subject: str) -> F:
        """The fold of this subject's log up to now. It belongs to the cache: read it at once."""
        entry = self._entries.get(subject)
        if entry is None:
            entry = self._entries[subject] = _Entry(self._initial())
        self._entries.move_to_end(subject)
        async with entry.lock:
            async for record in self._history(subject, entry.seq):
                self._take(entry.fold, record)
                entry.seq = record.seq
        if not entry.seq and self._entries.get(subject) is entry:
            del self._entries[subject]  # whoever asks for what is not there must not push out what is
        self._forget_least_used()
        return entry.fold

    def _forget_least_used(self) -> None:
        weight = sum(entry.fold.weight for entry in self._entries.values())
        while len(self._entries) > 1 and (len(self._entries) > self._entries_max or weight > self._weight_max):
            _, dropped = self._entries.popitem(last=False)
            weight -= dropped.fold.weight
