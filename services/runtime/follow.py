"""Following a stream in order, by callback: for projections, watchers and live views. Nothing is acknowledged."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from services.runtime.event_store import Recorded
from services.runtime.genuine import GUARDED, genuine, sent_on
from services.runtime.link import Link
from services.runtime.stream_info import missing

FORGED_NEWEST_MAX: Final = 10


class Follower:
    """An ordered consumer. It comes back by itself after a restart of the broker, at the message it had reached."""

    def __init__(self, link: Link, stream: str, pattern: str, handler: Callable[[Recorded], None]) -> None:
        self._link, self._stream, self._pattern, self._handler = link, stream, pattern, handler
        self._subscription: JetStreamContext.PushSubscription | None = None
        self.caught_up = asyncio.Event()
        self.last_seq = 0
        self.forged = 0
        """Messages that were passed over, because nobody could have put them there rightly."""
        self.forged_newest: deque[tuple[str, int]] = deque(maxlen=FORGED_NEWEST_MAX)
        """Subjects and sequences of the newest of them."""

    async def start(self, after: int | None, headers_only: bool) -> None:
        """Begin behind sequence `after`; None means only what is new."""
        policy = DeliverPolicy.NEW if after is None else DeliverPolicy.BY_START_SEQUENCE
        config = ConsumerConfig(
            deliver_policy=policy,
            opt_start_seq=None if after is None else after + 1,
            headers_only=headers_only or None,
        )
        try:
            self._subscription = await self._link.client.jetstream().subscribe(
                self._pattern,
                stream=self._stream,
                cb=self._on_message,
                ordered_consumer=True,
                idle_heartbeat=1,
                config=config,
                pending_msgs_limit=1_000_000,
                pending_bytes_limit=1 << 30,
            )
        except NotFoundError as error:
            raise missing(self._link, self._stream) from error
        info = await self._subscription.consumer_info()
        if not info.num_pending:
            self.caught_up.set()

    async def stop(self) -> None:
        """Follow no more."""
        if self._subscription is not None and not self._link.client.is_closed:
            await self._subscription.unsubscribe()
            self._subscription = None

    async def _on_message(self, message: Msg) -> None:
        meta = message.metadata
        seq = meta.sequence.stream
        if seq <= self.last_seq:
            return
        headers = message.headers or {}
        try:
            if genuine(self._stream, headers) and not (self._stream in GUARDED and sent_on(headers)):
                self._handler(Recorded(seq, message.subject, message.data, headers))
            else:
                self.forged += 1
                self.forged_newest.append((message.subject, seq))
                self._link.forgeries.seen(self._stream, message.subject, seq)
        except Exception as error:  # one bad message must not freeze a view of all the others
            self._link.on_failure(f"{message.subject} at {seq} was not taken in: {type(error).__name__}: {error}")
        finally:
            self.last_seq = seq
            if not meta.num_pending:
                self.caught_up.set()
