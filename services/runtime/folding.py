"""From the log to a state: the newest snapshot if there is one, and every event behind it."""

from typing import Any, Generic, NamedTuple, TypeVar

from contracts.codec import CommitCodec
from services.runtime import telemetry
from services.runtime.decider import Decider
from services.runtime.event_store import EventStore
from services.runtime.snapshots import Snapshots

S = TypeVar("S")
E = TypeVar("E")


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
        self._decider, self._codec, self._store, self._snapshots = decider, codec, store, snapshots

    async def fold(self, actor_id: str, subject: str) -> Folded[S]:
        """The aggregate as the log has it now. Raises UnknownType or Undecodable, or Rejected nats_unavailable."""
        found = None if self._snapshots is None else await self._snapshots.load(subject)
        if found is not None:
            folded = await self._behind(subject, *found)
            if folded is not None:
                return folded
        return await self._take(subject, Folded(self._decider.initial(actor_id), 0, 0), after=0)

    async def _behind(self, subject: str, state: S, at_seq: int) -> Folded[S] | None:
        """A snapshot and what came after it; None when the log has nothing where the snapshot says it was taken.

        Then it is a snapshot of another log: streams can be lost and begun again one by one.
        """
        folded = await self._take(subject, Folded(state, 0, 0), after=at_seq - 1, known=at_seq)
        return folded if folded.seq else None

    async def _take(self, subject: str, begin: Folded[S], *, after: int, known: int = 0) -> Folded[S]:
        """Take in what stands behind `after`, save for the commit `known`, which must come first if there is one."""
        evolve, decode = self._decider.evolve, self._codec.decode
        state, seq, count, trace = begin
        async for record in self._store.read(subject, after):
            if known and not seq:
                if record.seq != known:
                    break
            else:
                for event in decode(record.data).events:
                    state = evolve(state, event)
                    count += 1
            seq, trace = record.seq, telemetry.extract(record.headers)
        return Folded(state, seq, count, trace)
