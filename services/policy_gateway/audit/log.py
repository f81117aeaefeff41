"""The one way into the audit: entries wait for their commit, and what waits together is chained and stored together.

All gateways write into the same chain. Each commit expects to be the next one; who loses that race reads what the
others wrote and chains its own entries anew behind it. Nobody is told "stored" before the broker has said so.
"""

import asyncio
import secrets
from collections import OrderedDict, deque
from typing import Any, Final, NamedTuple

import msgspec

from contracts.codec import CommitCodec
from contracts.commit import HEADER_TYPES, Commit
from contracts.errors import Rejected
from contracts.policy import AUDIT_ID, AuditCheckpoint, AuditEvent, ToolFinished
from contracts.streams import EVENTS_POLICY_GATEWAY
from contracts.subjects import events as event_subject
from services.policy_gateway.audit import chain
from services.policy_gateway.audit.chain import Broken, Head
from services.policy_gateway.audit.signing import Signer
from services.runtime.clock import Clock, rfc3339
from services.runtime.event_store import Conflict, EventStore, Recorded
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics

AUDIT_SUBJECT: Final = event_subject("policy-gateway", "audit", AUDIT_ID)
AUDIT_CODEC: Final[CommitCodec[AuditEvent]] = CommitCodec(AuditEvent)
ENTRIES_PER_COMMIT_MAX: Final = 256
BYTES_PER_COMMIT_MAX: Final = 512 << 10
CONFLICTS_MAX: Final = 50
WAITING_MAX: Final = 10_000
CLOSED_REMEMBERED_MAX: Final = 10_000
CHECKPOINT_ENTRIES: Final = 1_000
CHECKPOINT_S: Final = 60.0


class RawCommit(msgspec.Struct, frozen=True):
    """A stored commit whose entries are not read as structs: the hash covers what is really there."""

    events: list[dict[str, Any]]


DECODE_RAW: Final = msgspec.json.Decoder(RawCommit).decode


class _Waiting(NamedTuple):
    entries: tuple[AuditEvent, ...]
    stored: "asyncio.Future[int]"
    bytes: int


class AuditLog:
    """Appends entries; their n, prev and hash are given here. Start it before use."""

    def __init__(
        self, *, store: EventStore, clock: Clock, signer: Signer, gateway: str, metrics: Metrics, log: Log,
        payload_max: int,
    ) -> None:  # fmt: skip
        self._store, self._clock, self._signer, self._gateway = store, clock, signer, gateway
        self._metrics, self._log = metrics, log
        self._bytes_max = min(BYTES_PER_COMMIT_MAX, payload_max // 2)
        self._nonce, self._count = secrets.token_hex(6), 0
        self._head = Head()
        self._signed_n = 0
        self._signed_s = clock.monotonic_s()
        self._in_doubt = False
        self._refusal = ""
        self._waiting: deque[_Waiting] = deque()
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._flushing: asyncio.Task[None] | None = None

    @property
    def head(self) -> Head:
        """The last entry that is known here to be stored."""
        return self._head

    def not_ready(self) -> str | None:
        """Why calls are refused; None when what waits to be stored is stored."""
        return f"the audit cannot be stored: {self._refusal}" if self._refusal else None

    async def start(self) -> None:
        """Find the end of the chain. Raises Rejected when the log cannot be read."""
        newest = await self._store.last(AUDIT_SUBJECT)
        if newest is None:
            return
        try:
            last = DECODE_RAW(newest.data).events[-1]
            self._head = Head(int(last["n"]), str(last["hash"]), newest.seq)
            self._signed_n = self._head.n if last.get("type") == "audit.checkpoint.v1" else 0
        except (msgspec.MsgspecError, LookupError, ValueError, TypeError):
            await self._catch_up()

    async def append(self, *entries: AuditEvent) -> int:
        """Store entries, in order and together; the sequence of their commit. Raises Rejected when that is not sure."""
        if len(self._waiting) >= WAITING_MAX:
            raise Rejected("mailbox_full", "too many audit entries wait to be stored")
        size = sum(len(msgspec.json.encode(entry)) for entry in entries)
        waiting = _Waiting(entries, asyncio.get_running_loop().create_future(), size)
        self._waiting.append(waiting)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush(), name="audit-flush")
        # Who asked may be cancelled; its entry is stored all the same, together with the others.
        return await asyncio.shield(waiting.stored)

    async def checkpoint_if_due(self, *, at_once: bool = False) -> bool:
        """Sign what was not signed for a while; every CHECKPOINT_ENTRIES a commit brings its signature by itself."""
        late = at_once or self._clock.monotonic_s() - self._signed_s >= CHECKPOINT_S
        # When the store said no, this is how it is found out that it says yes again.
        if not self._refusal and (self._head.n <= self._signed_n or not late):
            return False
        await self.append(self._unsigned())
        return True

    async def drain(self) -> None:
        """Wait until nothing waits to be stored."""
        while self._flushing is not None and not self._flushing.done():
            await asyncio.wait((self._flushing,))

    # -- committing ------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        while self._waiting:
            batch = self._take()
            try:
                seq = await self._commit([entry for waiting in batch for entry in waiting.entries])
            except Exception as error:  # whoever waits is told, and the next batch is tried all the same
                self._in_doubt = True
                self._refusal = error.code if isinstance(error, Rejected) else type(error).__name__
                for waiting in batch:
                    if not waiting.stored.done():
                        waiting.stored.set_exception(error)
                        waiting.stored.exception()  # who was cancelled meanwhile does not look
                continue
            self._refusal = ""
            for waiting in batch:
                if not waiting.stored.done():
                    waiting.stored.set_result(seq)

    def _take(self) -> list[_Waiting]:
        batch, count, size = [self._waiting.popleft()], 1, 0
        while self._waiting and count < ENTRIES_PER_COMMIT_MAX and size < self._bytes_max:
            nearest = self._waiting[0]
            if batch[0].bytes + size + nearest.bytes > self._bytes_max:
                break
            batch.append(self._waiting.popleft())
            count += len(nearest.entries)
            size += nearest.bytes
        return batch

    async def _commit(self, entries: list[AuditEvent]) -> int:
        if self._in_doubt:
            await self._catch_up()
            self._in_doubt = False
        for _ in range(CONFLICTS_MAX):
            chained, head = self._chain(entries)
            if not chained:
                return self._head.seq
            now = rfc3339(self._clock.now_ms())
            commit = Commit(at=now, by=self._gateway, cause=self._gateway, corr=AUDIT_ID, events=chained)
            self._count += 1
            try:
                seq = await self._store.append(
                    AUDIT_SUBJECT, (AUDIT_CODEC.encode(commit),), expect=self._head.seq,
                    msg_id=f"{self._nonce}-{self._count}", headers={HEADER_TYPES: AUDIT_CODEC.types_header(chained)},
                )  # fmt: skip
            except Conflict:
                self._metrics.inc("htdag_commits_total", stream=EVENTS_POLICY_GATEWAY, outcome="conflict")
                await self._catch_up()
                continue
            self._head = head._replace(seq=seq)
            self._stored(chained)
            return seq
        raise Rejected("conflict", "other gateways were always faster to write the audit")

    def _chain(self, entries: list[AuditEvent]) -> tuple[list[AuditEvent], Head]:
        head, chained = self._head, list[AuditEvent]()
        for entry in entries:
            if isinstance(entry, ToolFinished) and entry.id in self._closed:
                continue  # it is closed already: by a gateway that took this one for dead, or at our own start
            placed = self._signed(head) if isinstance(entry, AuditCheckpoint) else chain.linked(entry, head)
            head = chain.after(placed, head)
            chained.append(placed)
        if chained and head.n - self._signed_n >= CHECKPOINT_ENTRIES:
            chained.append(self._signed(head))
            head = chain.after(chained[-1], head)
        return chained, head

    def _unsigned(self) -> AuditCheckpoint:
        return AuditCheckpoint(
            n=0, prev="", hash="", at_ms=0, gateway=self._gateway, key=self._signer.public, signature=""
        )

    def _signed(self, head: Head) -> AuditEvent:
        n, at_ms = head.n + 1, self._clock.now_ms()
        signature = self._signer.sign(n, head.hash, at_ms)
        return chain.linked(msgspec.structs.replace(self._unsigned(), at_ms=at_ms, signature=signature), head)

    def _stored(self, entries: list[AuditEvent]) -> None:
        self._metrics.inc("htdag_commits_total", stream=EVENTS_POLICY_GATEWAY, outcome="stored")
        for entry in entries:
            self._metrics.inc("htdag_audit_entries_total", type=AUDIT_CODEC.tags[type(entry)])
            if isinstance(entry, AuditCheckpoint):
                self._note_signature(entry.n)
            elif isinstance(entry, ToolFinished):
                self._note_end(entry.id)

    async def _catch_up(self) -> None:
        """Read what others wrote. What is no entry of the chain is skipped: `verify` finds it, calls go on."""
        async for record in self._store.read(AUDIT_SUBJECT, self._head.seq):
            self._take_in(record)

    def _take_in(self, record: Recorded) -> None:
        try:
            events = DECODE_RAW(record.data).events
            head = self._head
            for fields in events:
                head = chain.check(fields, head)
        except (msgspec.MsgspecError, Broken) as error:
            self._log.error("audit_stray", seq=record.seq, reason=str(error))
            self._head = self._head._replace(seq=record.seq)
            return
        for fields in events:
            if fields.get("type") == "audit.checkpoint.v1":
                self._note_signature(int(fields["n"]))
            elif fields.get("type") == "tool.finished.v1":
                self._note_end(str(fields.get("id")))
        self._head = head._replace(seq=record.seq)

    def _note_end(self, call_id: str) -> None:
        """A call has one end in the audit."""
        self._closed[call_id] = None
        if len(self._closed) > CLOSED_REMEMBERED_MAX:
            self._closed.popitem(last=False)

    def _note_signature(self, n: int) -> None:
        self._signed_n, self._signed_s = n, self._clock.monotonic_s()
