"""The bus: everything a service may do with NATS, with a deadline on every wait and an outcome for every write."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from contracts import reply as envelope
from contracts import subjects
from contracts.commit import HEADER_REASON
from contracts.errors import Rejected
from contracts.streams import DEAD_LETTERS, STREAMS, ConsumerSpec
from services.runtime import direct_get, telemetry
from services.runtime.event_store import Recorded
from services.runtime.follow import Follower
from services.runtime.link import Link, status_of
from services.runtime.publisher import Stored, StreamWriter, Write
from services.runtime.pull import Delivery, Puller
from services.runtime.stream_info import NO_STREAM

T = TypeVar("T")

BATCH_MIN: Final[Mapping[str, int]] = {"always": 13, "relaxed": 400}
"""Waiting writes from which one atomic batch beats single publishes: with an fsync per message, and without."""
NO_MESSAGE_FOUND: Final = 10037
"""JetStream's error code for a subject that has no message."""
_BATCHED: Final = frozenset(spec.name for spec in STREAMS if spec.config.get("allow_atomic"))
_REFUSALS: Final[Mapping[int, str]] = {
    10039: "jetstream_unavailable",
    10047: "storage_full",
    NO_STREAM: "stream_missing",
    10076: "jetstream_unavailable",
}
_ENCODE: Final = msgspec.json.Encoder().encode


class Message(NamedTuple):
    """A core NATS message."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    reply: str


class Subscription:
    """A core subscription that can be ended."""

    def __init__(self, link: Link, subscription: NatsSubscription) -> None:
        self._link, self._subscription = link, subscription

    async def unsubscribe(self) -> None:
        """End it at once; what was delivered and not handled yet is thrown away."""
        await self._subscription.unsubscribe()

    async def drain(self, timeout_s: float = 5.0) -> None:
        """End it, and handle everything that the broker had sent to it. Raises TimeoutError at the deadline."""
        async with asyncio.timeout(timeout_s):
            await self._link.drain(self._subscription)


class Bus:
    """One process's connection to everything. `sync` is the broker's: "always", or anything else for relaxed.

    Whatever is sent while something is handled carries that thing's trace on.
    """

    def __init__(
        self,
        client: Client,
        *,
        sync: str = "always",
        log: Callable[[str], None] = lambda _: None,
        on_failure: Callable[[str], None] = lambda _: None,
        on_batch: Callable[[str, int], None] = lambda _stream, _size: None,
        on_forged: Callable[[str, str, int], None] = lambda _stream, _subject, _seq: None,
        on_absent: Callable[[str], None] = lambda _stream: None,
    ) -> None:
        self.client = client
        self.link = Link(client, log, on_failure, on_forged, on_absent)
        self._log = log
        self._on_batch = on_batch
        self._batch_min = BATCH_MIN.get(sync, BATCH_MIN["relaxed"])
        self._writers: dict[str, StreamWriter] = {}
        self._pullers: list[Puller] = []
        self._followers: list[Follower] = []

    async def start(self) -> None:
        """Open the shared inbox."""
        await self.link.start()

    async def close(self) -> None:
        """Stop pulling and following, then close the connection."""
        for puller in self._pullers:
            puller.stop()
        for follower in self._followers:
            await follower.stop()
        await self.link.close()

    @property
    def payload_max(self) -> int:
        """The broker's largest message, in bytes."""
        return self.client.max_payload

    @property
    def connected(self) -> bool:
        """Whether the connection is up right now."""
        return self.client.is_connected

    def inbox(self) -> str:
        """A fresh inbox subject for a subscription of one's own."""
        return self.client.new_inbox()

    # -- core ------------------------------------------------------------------------------------------------------

    def publish(self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Send without acknowledgement, in order with everything else that is sent."""
        # The broker's own API is nobody's to trace.
        carried = headers if subject.startswith("$") else telemetry.carrying(headers)
        if not self.link.send(subject, data, reply, carried):
            closed = self.client.is_closed
            raise Rejected("nats_unavailable" if closed else "mailbox_full", "it cannot be sent now", subject=subject)

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> Message:
        """Send and wait for the first reply. Raises Rejected no_responders, timeout or nats_unavailable."""
        first: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        inbox = self.link.expect(lambda message: None if first.done() else first.set_result(message))
        try:
            self.publish(subject, data, reply=inbox, headers=headers)
            async with asyncio.timeout(timeout_s):
                message = await first
        except TimeoutError:
            code = "timeout" if self.connected else "nats_unavailable"
            raise Rejected(code, subject=subject, timeout_ms=int(timeout_s * 1000)) from None
        finally:
            self.link.forget(inbox)
        if status_of(message) == "503":
            raise Rejected("no_responders", subject=subject)
        return Message(message.subject, message.data, message.headers or {}, message.reply)

    async def call(
        self,
        subject: str,
        body: Any,
        *,
        timeout_s: float = 10.0,
        into: type[T] | Any = Any,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call a request verb and return the envelope's value as `into`.

        Raises RemoteRejected when the service refuses and Rejected("service_unavailable") when none answers.
        """
        try:
            message = await self.request(subject, _ENCODE(body), timeout_s=timeout_s, headers=headers)
        except Rejected as error:
            if error.code == "no_responders":
                service = subject.removeprefix(f"{subjects.ROOT}.").split(".")[0]
                raise Rejected("service_unavailable", f"{service} does not answer", service=service) from None
            raise
        value = envelope.parse(message.data)
        return value if into is Any else msgspec.convert(value, into, strict=False)

    async def subscribe(self, subject: str, handler: Callable[[Message], None], *, queue: str = "") -> Subscription:
        """Hand every message to `handler`, which must be quick; with `queue`, share them with others of that name."""

        def take(message: Msg) -> None:
            handler(Message(message.subject, message.data, message.headers or {}, message.reply))

        return Subscription(self.link, await self.link.subscribe(subject, take, queue))

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until the broker has seen everything sent so far."""
        async with asyncio.timeout(timeout_s):
            await self.link.flush()

    # -- JetStream: writing ----------------------------------------------------------------------------------------

    def store(
        self, subject: str, data: bytes, *, stream: str, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> "asyncio.Future[Stored]":
        """Store one message durably. The future has a definite outcome: Stored, or a Rejected."""
        write = Write(subject, (data,), msg_id, None, telemetry.carrying(headers) or {})
        self.writer(stream).put(write)
        return write.future

    def writer(self, stream: str) -> StreamWriter:
        """The writer of one stream; all writes of this process into it share its group commit."""
        found = self._writers.get(stream)
        if found is None:
            found = self._writers[stream] = StreamWriter(
                self.link,
                stream,
                batch_min=self._batch_min if stream in _BATCHED else None,
                on_batch=lambda size: self._on_batch(stream, size),
            )
        return found

    @property
    def stopped(self) -> list[str]:
        """Streams that the broker has stopped writing, as a full disk makes it do, by the last try."""
        return [stream for stream, writer in self._writers.items() if writer.pulse.stopped]

    def stopped_now(self, stream: str) -> bool:
        """Whether a try of the last seconds found this stream stopped: what needs it had better wait."""
        writer = self._writers.get(stream)
        return writer is not None and writer.pulse.stopped_now

    def reconnected(self) -> None:
        """The broker may be a new one: its streams are not known to be stopped any more."""
        for writer in self._writers.values():
            writer.pulse.beat()

    async def dead_letter(self, delivery: Delivery, code: str, detail: str = "") -> None:
        """Put a message aside, with the reason, and end its delivery. It stays in its stream if that fails."""
        headers = {
            **{key: value for key, value in delivery.headers.items() if not key.startswith("Nats-")},
            HEADER_REASON: code,
            "Htdag-Detail": detail[:500],
            "Htdag-Subject": delivery.subject,
            "Htdag-Seq": str(delivery.seq),
        }
        subject, msg_id = subjects.dead_letter(delivery.stream), f"{delivery.stream}:{delivery.seq}"
        try:
            await self.store(subject, delivery.data, stream=DEAD_LETTERS, msg_id=msg_id, headers=headers)
        except Rejected as error:
            if error.code != "too_large":
                raise
            # With the reason it is larger than the broker takes: it stays readable where it was, by its sequence.
            await self.store(subject, b"", stream=DEAD_LETTERS, msg_id=msg_id, headers=headers)
        delivery.term(code)

    # -- JetStream: reading ----------------------------------------------------------------------------------------

    async def last(self, stream: str, subject: str) -> Recorded | None:
        """The newest message of one subject that is not forged."""
        return await direct_get.last(self.link, stream, subject)

    async def last_stored(self, stream: str, subject: str) -> Recorded | None:
        """The newest message of one subject, void when it is forged."""
        return await direct_get.last_stored(self.link, stream, subject)

    async def at(self, stream: str, seq: int) -> Recorded | None:
        """The message at one sequence of a stream, void when it is forged, None when it is gone."""
        return await direct_get.at(self.link, stream, seq)

    async def newest(self, stream: str, subject: str) -> int:
        """The sequence of one subject's newest message as the stream's leader has it, 0 when there is none."""
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except Rejected as error:
            if error.detail.get("err_code") == NO_MESSAGE_FOUND:
                return 0
            raise
        return int(answer["message"]["seq"])

    def history(self, stream: str, pattern: str, after: int = 0) -> AsyncIterator[Recorded]:
        """Messages that match `pattern`, behind sequence `after`, in order, up to now; forged ones are void."""
        return direct_get.history(self.link, stream, pattern, after)

    async def first_since(self, stream: str, pattern: str, at: str) -> int:
        """The sequence of the first message that matches `pattern` and is not older than `at` (RFC 3339), else 0."""
        return await direct_get.first_since(self.link, stream, pattern, at)

    async def last_of_many(self, stream: str, wanted: Sequence[str]) -> dict[str, Recorded]:
        """The newest message of each subject that has one that is not forged."""
        return await direct_get.last_of_many(self.link, stream, wanted)

    async def subjects(self, stream: str, pattern: str) -> dict[str, int]:
        """Subjects of a stream that match `pattern`, with their numbers of messages."""
        found: dict[str, int] = {}
        while True:
            answer = await self.api(f"STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": len(found)})
            page = answer["state"].get("subjects") or {}
            found.update(page)
            if not page or len(found) >= answer.get("total", 0):
                return found

    async def api(self, verb: str, body: Any = None, *, timeout_s: float = 5.0) -> dict[str, Any]:
        """One raw JetStream API request. Raises Rejected, internal for what has no code of its own."""
        try:
            message = await self.request(f"$JS.API.{verb}", b"" if body is None else _ENCODE(body), timeout_s=timeout_s)
        except Rejected as error:
            if error.code == "no_responders":
                raise Rejected("jetstream_unavailable") from None
            raise
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        refusal = answer.get("error")
        if refusal:
            code = _REFUSALS.get(refusal.get("err_code", 0), "internal")
            raise Rejected(code, refusal.get("description"), err_code=refusal.get("err_code", 0), api=verb)
        return answer

    async def pull(
        self,
        consumer: ConsumerSpec,
        handler: Callable[[Delivery], None],
        *,
        credit: int | Callable[[], int] = 256,
        priority: int | None = None,
    ) -> Puller:
        """Pull from a durable consumer into `handler`, at most `credit` messages unsettled at once."""
        puller = Puller(self.link, consumer, handler, credit=credit, priority=priority, log=self._log)
        await puller.start()
        self._pullers.append(puller)
        return puller

    async def follow(
        self,
        stream: str,
        pattern: str,
        handler: Callable[[Recorded], None],
        *,
        after: int | None = 0,
        headers_only: bool = False,
    ) -> Follower:
        """Hand every message that matches `pattern`, in order, to `handler`; `after=None` means only new ones."""
        follower = Follower(self.link, stream, pattern, handler)
        async with asyncio.timeout(10):
            await follower.start(after, headers_only)
        self._followers.append(follower)
        return follower
