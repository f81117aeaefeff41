"""The record of each call of a task: taken by one gateway, once; its answer, once."""

import secrets
from typing import Final, NamedTuple

from contracts.codec import CommitCodec
from contracts.commit import HEADER_TYPES, Commit
from contracts.policy import CallClaimed, CallEvent, CallFinished, ToolDecided
from contracts.subjects import events as event_subject
from services.runtime.clock import Clock, rfc3339
from services.runtime.event_store import EventStore

CALL_CODEC: Final[CommitCodec[CallEvent]] = CommitCodec(CallEvent)


class Record(NamedTuple):
    """A call as its log has it. `seq` is that of the claim, to finish it behind."""

    claimed: CallClaimed
    finished: CallFinished | None
    seq: int


class CallRecords:
    """Appends and reads the logs of calls; who comes second gets a Conflict."""

    def __init__(self, store: EventStore, clock: Clock, gateway: str) -> None:
        self._store, self._clock, self._gateway = store, clock, gateway
        self._nonce, self._count = secrets.token_hex(6), 0

    async def claim(self, decided: ToolDecided, audit_seq: int) -> int:
        """Take a call that nobody has taken; the sequence to finish it behind. Raises Conflict."""
        return await self._append(decided.id, CallClaimed(decided, audit_seq), expect=0)

    async def finish(self, call_id: str, finished: CallFinished, seq: int) -> None:
        """Record the answer for ever. Raises Conflict when another one was recorded meanwhile."""
        await self._append(call_id, finished, expect=seq)

    async def read(self, call_id: str) -> Record | None:
        """What is recorded of a call."""
        claimed: CallClaimed | None = None
        finished: CallFinished | None = None
        seq = 0
        async for record in self._store.read(event_subject("policy-gateway", "call", call_id)):
            for event in CALL_CODEC.decode(record.data, skip_unknown=True).events:
                if isinstance(event, CallClaimed):
                    claimed, seq = event, record.seq
                else:
                    finished = event
        return None if claimed is None else Record(claimed, finished, seq)

    async def _append(self, call_id: str, event: CallEvent, *, expect: int) -> int:
        self._count += 1
        now = rfc3339(self._clock.now_ms())
        commit: Commit[CallEvent] = Commit(at=now, by=self._gateway, cause=call_id, corr=call_id, events=[event])
        return await self._store.append(
            event_subject("policy-gateway", "call", call_id), (CALL_CODEC.encode(commit),), expect=expect,
            msg_id=f"{self._nonce}-{self._count}", headers={HEADER_TYPES: CALL_CODEC.types_header([event])},
        )  # fmt: skip
