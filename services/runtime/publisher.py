"""Storing in JetStream with a definite outcome: acknowledgements over one inbox, group commit, retries.

An acknowledgement can be lost, a write can arrive late, a leader can change: so each message carries an id, and an
optimistic append that is told "wrong sequence" first looks whether the newer message is its own, and passes over what
was smuggled in (genuine.py).

Group commit: what waits while a batch is under way goes out as one atomic batch, from `batch_min` messages on. With
`sync_interval: always` a batch costs one fsync for all of it; below about 13 messages single publishes are faster.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from contracts.errors import Rejected
from contracts.streams import FACTS
from services.runtime import direct_get
from services.runtime.event_store import Conflict
from services.runtime.genuine import HEADER_STREAM
from services.runtime.link import Link, header_block, header_text, one_line, status_of
from services.runtime.pulse import Pulse
from services.runtime.stream_info import missing

ACK_TIMEOUT_S: Final = 3.0
DOUBT_TIMEOUT_S: Final = 1.5
"""When the stream is in doubt already, so long is enough to ask again."""
DEADLINE_S: Final = 15.0
"""Longer than the election of a new leader takes; after it nobody can say what became of the write."""
BATCH_MESSAGES_MAX: Final = 800
BATCH_BYTES_MAX: Final = 32 << 20
BATCHES_AT_ONCE_MAX: Final = 2
"""The broker works on one batch while this process decides what goes into the next."""
SINGLES_SHARE: Final = 3
"""One part in so many of `batch_min` may be under way as single messages; the rest gathers for a batch."""
QUEUE_MAX: Final = 100_000
QUEUE_BYTES_MAX: Final = 512 << 20
BATCH_HEADERS_BYTES: Final = 512
"""Room for the headers that a write gets here: id, stream, expected sequence, batch."""

WRONG_SEQUENCE: Final = frozenset({10071, 10164})
DOUBLE_IN_BATCH: Final = 10201
RENAMED: Final = "~"
"""Stands between a random prefix and the id of a write that had to go on under another one."""
STORAGE_FULL: Final = frozenset({10047, 10077, 10023, 10028, 10054})
REFUSED: Final = frozenset({10025, 10052, 10060, 10100, 10189, 10190, 10193})


class Stored(NamedTuple):
    """A definite outcome: the message is at `seq`; `duplicate` when the same id had been stored before."""

    seq: int
    duplicate: bool


class _AckError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _AckError | None = None


_DECODE: Final = msgspec.json.Decoder(_Ack).decode


class Write:
    """One message (or several on one subject, all or none) on its way into a stream."""

    __slots__ = (
        "_id", "bytes", "due", "expect", "future", "header_text", "largest", "msg_id", "parts", "subject", "tries",
    )  # fmt: skip

    def __init__(
        self, subject: str, parts: Sequence[bytes], msg_id: str, expect: int | None, headers: Mapping[str, str]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.subject, self.parts, self.msg_id, self.expect = subject, parts, one_line(msg_id), expect
        self.header_text = header_text(headers)
        self.future: asyncio.Future[Stored] = loop.create_future()
        self.due = loop.time() + DEADLINE_S
        self.tries = 0
        self._id = self.msg_id
        self.bytes = largest = len(parts[0])
        for part in parts[1:]:
            self.bytes += len(part)
            largest = max(largest, len(part))
        self.largest = largest + len(self.header_text)

    def settle(self, seq: int, duplicate: bool = False) -> None:
        """It is stored."""
        if not self.future.done():
            self.future.set_result(Stored(seq, duplicate))

    def is_last_part(self, msg_id: str | None) -> bool:
        """Whether a message with this id is the last part of this write, under whatever name it was stored."""
        last = self._id if len(self.parts) == 1 else f"{self._id}.{len(self.parts) - 1}"
        return msg_id is not None and (msg_id == last or msg_id.endswith(f"{RENAMED}{last}"))

    def rename(self) -> None:
        """Go on under an id that nobody can guess: something was smuggled into the stream under this one."""
        self.msg_id = f"{secrets.token_hex(6)}{RENAMED}{self._id}"

    def fail(self, error: Exception) -> None:
        """It is definitely not stored, or nobody can say."""
        if not self.future.done():
            self.future.set_exception(error)


class StreamWriter:
    """All writes of this process into one stream."""

    def __init__(
        self, link: Link, stream: str, *, batch_min: int | None, on_batch: Callable[[int], None] = lambda _: None
    ) -> None:
        self._link, self.stream, self._batch_min, self._on_batch = link, stream, batch_min, on_batch
        self._loop = asyncio.get_running_loop()
        self._stream_line = f"{HEADER_STREAM}: {stream}\r\n"
        self._queue: deque[Write] = deque()
        self._queued_bytes = 0
        self._scheduled = False
        self._batches = self._singles = 0
        self._in_flight: dict[str, tuple[list[Write], float]] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._repairs: set[asyncio.Task[None]] = set()
        self.pulse = Pulse(link, stream)

    def put(self, write: Write) -> None:
        """Take a write in; its future tells the outcome."""
        most = self._link.client.max_payload - BATCH_HEADERS_BYTES
        if write.largest > most:
            # Found here, because in a batch it would fail all the others with it.
            write.fail(Rejected("too_large", "larger than the broker takes", bytes=write.largest, max=most))
            return
        if len(self._queue) >= QUEUE_MAX or (self._queue and self._queued_bytes + write.bytes > QUEUE_BYTES_MAX):
            write.fail(Rejected("mailbox_full", f"too many writes wait for {self.stream}", stream=self.stream))
            return
        self._queue.append(write)
        self._queued_bytes += write.bytes
        self._schedule()

    def _take(self) -> Write:
        write = self._queue.popleft()
        self._queued_bytes -= write.bytes
        return write

    @property
    def waiting(self) -> int:
        """Writes that have no outcome yet."""
        return len(self._queue) + sum(len(writes) for writes, _ in self._in_flight.values())

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # One turn of the loop: whatever else is put in this turn goes out together.
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        queue = self._queue
        while queue:
            if self._batch_min is not None and len(queue) >= self._batch_min:
                if self._batches >= BATCHES_AT_ONCE_MAX:
                    return
                self._send(self._next_batch())
            elif self._batch_min is None or self._singles < self._batch_min // SINGLES_SHARE:
                self._send([self._take()])
            else:
                # An acknowledgement makes room; what gathers until then may fill a batch.
                return

    def _next_batch(self) -> list[Write]:
        queue = self._queue
        writes = [self._take()]
        messages, size = len(writes[0].parts), writes[0].bytes
        while queue and messages + len(queue[0].parts) <= BATCH_MESSAGES_MAX and size <= BATCH_BYTES_MAX:
            write = self._take()
            writes.append(write)
            messages += len(write.parts)
            size += write.bytes
        self._on_batch(len(writes))
        return writes

    def _send(self, writes: list[Write]) -> None:
        reply = self._link.expect(self._on_ack)
        doubtful = self.pulse.stopped or writes[0].tries
        self._in_flight[reply] = (writes, self._loop.time() + (DOUBT_TIMEOUT_S if doubtful else ACK_TIMEOUT_S))
        self._count(writes, 1)
        try:
            if len(writes) == 1 and len(writes[0].parts) == 1:
                write = writes[0]
                queued = self._link.send_block(
                    write.subject, write.parts[0], reply, header_block(self._headers(write, 0))
                )
            else:
                queued = self._send_batch(writes, reply)
        except Rejected as refused:
            for write in self._forget(reply):
                write.fail(refused)
            return
        if not queued:
            # The connection is down and its queue is full: try again until the deadline of each write.
            self._retry(self._forget(reply), None)
        elif self._watch is None:
            self._watch = self._loop.call_later(ACK_TIMEOUT_S / 4, self._check_silence)

    def _send_batch(self, writes: list[Write], reply: str) -> bool:
        total = sum(len(write.parts) for write in writes)
        batch_id = secrets.token_hex(8)
        number = 0
        for write in writes:
            for index, part in enumerate(write.parts):
                number += 1
                text = f"{self._headers(write, index)}Nats-Batch-Id: {batch_id}\r\nNats-Batch-Sequence: {number}\r\n"
                if number == total:
                    text += "Nats-Batch-Commit: 1\r\n"
                if not self._link.send_block(write.subject, part, reply if number == total else "", header_block(text)):
                    return False
        return True

    def _headers(self, write: Write, index: int) -> str:
        """The lines of headers of one part; the stream's stands first, before any text of others (see genuine.py)."""
        if index:
            return f"{self._stream_line}Nats-Msg-Id: {write.msg_id}.{index}\r\n{write.header_text}"
        text = f"{self._stream_line}Nats-Msg-Id: {write.msg_id}\r\n{write.header_text}"
        return text if write.expect is None else f"{text}Nats-Expected-Last-Subject-Sequence: {write.expect}\r\n"

    def _forget(self, reply: str) -> list[Write]:
        self._link.forget(reply)
        writes, _ = self._in_flight.pop(reply, ([], 0.0))
        self._count(writes, -1)
        if self._queue:
            self._schedule()
        return writes

    def _count(self, writes: list[Write], step: int) -> None:
        if len(writes) > 1:
            self._batches += step
        elif writes:
            self._singles += step

    def _on_ack(self, message: Msg) -> None:
        writes = self._forget(message.subject)
        if status_of(message) is not None:  # no responders: no stream, no leader, or no JetStream
            self._retry(writes, None)
            return
        try:
            ack = _DECODE(message.data)
        except msgspec.MsgspecError:
            self._retry(writes, None)
            return
        if ack.error is not None:
            self._retry(writes, ack.error)
            return
        self.pulse.beat()
        if ack.duplicate and self.stream in FACTS and len(writes) == 1:
            self._spawn(self._doubt(writes[0], ack.seq))
            return
        seq = ack.seq
        for write in reversed(writes):
            write.settle(seq, ack.duplicate)
            seq -= len(write.parts)

    def _check_silence(self) -> None:
        """Writes whose acknowledgement is overdue are asked for again; ids make that harmless."""
        self._watch = None
        loop = self._loop
        now = loop.time()
        for reply in [reply for reply, (_, overdue_at) in self._in_flight.items() if overdue_at < now]:
            self._retry(self._forget(reply), None)
        if self._in_flight:
            self._watch = loop.call_later(ACK_TIMEOUT_S / 4, self._check_silence)

    def _retry(self, writes: list[Write], error: _AckError | None) -> None:
        for write in writes:
            alone = len(writes) == 1
            self._spawn(self._repair(write, error if alone else None))

    def _spawn(self, repair: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(repair, name="publisher-repair")
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)

    async def _doubt(self, write: Write, seq: int) -> None:
        """The broker has this id already: what stands under it must be ours."""
        try:
            found = await direct_get.at(self._link, self.stream, seq)
        except Rejected:
            found = None
        if found is not None and not found.forged:
            write.settle(seq, duplicate=True)
            return
        if found is not None:
            write.rename()
        await self._repair(write, None)

    async def _repair(self, write: Write, error: _AckError | None) -> None:
        """Find out what became of a write that was not plainly acknowledged; send it again if that may help."""
        expected = write.expect
        try:
            if error is not None and error.err_code not in WRONG_SEQUENCE:
                refusal = _refusal(error, write)
                if refusal is not None:
                    write.fail(refusal)
                    return
            seq = await self._find(write) if write.expect is not None else None
            if seq is not None:
                write.settle(seq, duplicate=True)
                return
            if error is not None and error.err_code == DOUBLE_IN_BATCH and self.stream in FACTS:
                write.rename()
        except (Conflict, Rejected) as refused:
            if isinstance(refused, Conflict) or self._loop.time() > write.due:
                write.fail(refused)
                return
        # Also after an error: on a full disk the broker calls each atomic batch incomplete, and says no more than that.
        in_vain = await self.pulse.look() and write.tries > 0
        if in_vain or self._loop.time() > write.due:
            write.fail(self._unanswered())
            return
        if write.expect == expected:
            await asyncio.sleep(min(0.02 * 2**write.tries, 1.0))
        write.tries += 1
        if not write.future.done():
            self._send([write])

    def _unanswered(self) -> Rejected:
        if self.pulse.absent:
            return missing(self._link, self.stream)
        if self._link.client.is_connected:
            # A broker whose disk is full freezes a stream without a word, and answers everything else.
            text = f"the broker is there, but acknowledges nothing in {self.stream}: is its disk full?"
            return Rejected("storage_full", text, stream=self.stream)
        return Rejected("nats_unavailable", f"no acknowledgement from {self.stream}", stream=self.stream)

    async def _find(self, write: Write) -> int | None:
        """The sequence of `write` if it is stored; Conflict if something else is; None if nothing newer is there.

        What was smuggled in is nobody's: the write is then to go behind it.
        """
        newest, passed = 0, write.expect or 0
        async for record in direct_get.history(self._link, self.stream, write.subject, passed):
            if write.is_last_part(record.headers.get("Nats-Msg-Id")):
                return record.seq
            passed = record.seq
            newest = newest if record.forged else record.seq
        if newest:
            raise Conflict(newest)
        write.expect = passed
        return None


def _refusal(error: _AckError, write: Write) -> Rejected | None:
    """The refusal that trying again cannot cure, None when it may."""
    if error.err_code == 10054 or "payload" in error.description:
        return Rejected("too_large", error.description, subject=write.subject, bytes=write.bytes)
    if error.err_code in STORAGE_FULL or "no space" in error.description or "resources" in error.description:
        return Rejected("storage_full", error.description or None, subject=write.subject)
    if error.err_code in REFUSED:
        return Rejected("internal", f"the broker refused the message: {error.description}", subject=write.subject)
    return None
