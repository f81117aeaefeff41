"""From the log to a state: the newest snapshot if there is one, and every event behind it."""

from datetime import datetime, timedelta
from typing import Any, Final, Generic, NamedTuple, TypeVar

from contracts.codec import CommitCodec
from services.runtime import telemetry
from services.runtime.decider import Decider
from services.runtime.direct_get import STORED_AT
from services.runtime.event_store import EventStore, Recorded
from services.runtime.snapshots import Kept, Snapshots

S = TypeVar("S")
E = TypeVar("E")

CLOCKS_DIFFER: Final = timedelta(seconds=1)


class Folded(NamedTuple, Generic[S]):
    """A state, the sequence of its last commit (0 when there is none), and how many events no snapshot holds.

    `trace` is that of the last commit.
    """

    state: S
    seq: int
    events: int
    trace: str = ""


class Folding(Generic[S, E]):
    """Folds aggregates of one kind."""

    def __init__(
        self,
        decider: Decider[Any, S, E],
        codec: CommitCodec[E],
        store: EventStore,
        snapshots: Snapshots[S] | None,
    ) -> None:
        self._initial, self._evolve, self._decode = decider.initial, decider.evolve, codec.decode
        self._store, self._snapshots = store, snapshots

    def take(self, state: S, record: Recorded) -> tuple[S, int]:
        """The state after one commit, and how many events it was. Raises UnknownType or Undecodable before any."""
        evolve, events = self._evolve, self._decode(record.data).events
        for event in events:
            state = evolve(state, event)
        return state, len(events)

    async def fold(self, actor_id: str, subject: str) -> Folded[S]:
        """The aggregate as the log has it now. Raises UnknownType or Undecodable, or Rejected nats_unavailable."""
        found = None if self._snapshots is None else await self._snapshots.load(subject)
        if found is not None:
            folded = await self._behind(subject, found)
            if folded is not None:
                return folded
        return await self._read(subject, Folded(self._initial(actor_id), 0, 0), after=0)

    async def _behind(self, subject: str, kept: Kept[S]) -> Folded[S] | None:
        """A snapshot and what came after it; None when the log is not the one that it was taken of.

        Streams can be lost and begun again, or put back from a copy, one by one: then another commit stands at the
        snapshot's sequence, or none; and one that was stored after the snapshot is another.
        """
        folded = await self._read(subject, Folded(kept.state, 0, 0), after=kept.seq - 1, kept=kept)
        return folded if folded.seq else None

    async def _read(self, subject: str, begin: Folded[S], *, after: int, kept: Kept[S] | None = None) -> Folded[S]:
        """Take in what stands behind `after`, save for the commit that `kept` was taken of, which must come first."""
        state, seq, count, trace = begin
        async for record in self._store.read(subject, after):
            if kept is not None and not seq:
                if record.seq != kept.seq or _later(record.headers.get(STORED_AT, ""), kept.stored_at):
                    break
            else:
                state, events = self.take(state, record)
                count += events
            seq, trace = record.seq, telemetry.extract(record.headers)
        return Folded(state, seq, count, trace)


def _later(commit_at: str, snapshot_at: str) -> bool:
    """Whether a commit was stored after a snapshot, by more than the clocks of two brokers may differ."""
    if not commit_at or not snapshot_at:
        return False
    return datetime.fromisoformat(commit_at) - datetime.fromisoformat(snapshot_at) > CLOCKS_DIFFER
