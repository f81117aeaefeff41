"""What other processes wrote to an aggregate that this one has in memory.

Where several processes write the same aggregates as a rule, whoever did not write last would lose a race at each turn
and fold the whole log again. Here each turn and each read takes in first what is new: that costs one short read,
whoever wrote last and however long the log is. Only for aggregates without effects and deadlines: of what others wrote
nothing but the state may concern us.
"""

from typing import Any, Final, Generic, TypeVar

from services.runtime import telemetry
from services.runtime.event_store import EventStore, Recorded
from services.runtime.folding import Folding
from services.runtime.mailbox import Actor

S = TypeVar("S")
E = TypeVar("E")

COMMITS_MAX: Final = 1_000
"""Behind more than these a snapshot is the shorter way."""


class News(Generic[S, E]):
    """Brings actors up to date with the log, of which `folding` makes states."""

    def __init__(self, store: EventStore, folding: Folding[S, E]) -> None:
        self._store, self._folding = store, folding

    async def never_written(self, subject: str) -> bool:
        """Whether the log has nothing of an aggregate.

        As short a look as at one in memory, so that the time that an answer takes does not tell which it was.
        """
        return await self._store.last(subject) is None

    async def take_in(self, actor: Actor[Any, S, E]) -> bool:
        """Before a turn of a loaded actor. False when it must be folded anew."""
        news = await self._behind(actor.subject, actor.seq)
        if news is None:
            return False
        self._catch_up(actor, news)
        return True

    async def bring_up_to_date(self, actor: Actor[Any, S, E]) -> bool:
        """Between turns, whatever else happens meanwhile. False when its state cannot be used now."""
        seq = actor.seq
        news = await self._behind(actor.subject, seq)
        if news is None or not actor.loaded or actor.turning:
            return False
        if actor.seq == seq:
            self._catch_up(actor, news)
        return not news or actor.seq >= news[-1].seq

    async def _behind(self, subject: str, seq: int) -> list[Recorded] | None:
        """What stands behind `seq`, the last sequence known (0: none); None when that is not in this log any more.

        Streams can be lost and begun again one by one. None as well when there is very much.
        """
        found: list[Recorded] = []
        async for record in self._store.read(subject, max(seq - 1, 0)):
            if seq and not found and record.seq != seq:
                return None
            found.append(record)
            if len(found) > COMMITS_MAX:
                return None
        if seq and not found:
            return None
        return found[1:] if seq else found

    def _catch_up(self, actor: Actor[Any, S, E], news: list[Recorded]) -> None:
        for record in news:
            actor.state, events = self._folding.take(actor.state, record)
            actor.seq = record.seq
            actor.events_unsnapped += events
            actor.trace = telemetry.extract(record.headers) or actor.trace
