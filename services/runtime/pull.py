"""Pulling from a durable consumer into a callback: long pull requests, credit, priority groups, heartbeats.

nats-py's `fetch` knows no priority groups, hangs over a server restart and is slow in a loop; this does one thing.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from contracts.streams import GROUP, ConsumerSpec
from services.runtime.genuine import sent_on
from services.runtime.link import Link, status_of

EXPIRES_S: Final = 5.0
HEARTBEAT_S: Final = 1.0
SILENCE_S: Final = 2.5 * HEARTBEAT_S
PULL_MESSAGES_MAX: Final = 256
RETRY_DELAY_S: Final = 0.1
FAILED_DELAY_S: Final = 1.0
_ENCODE: Final = msgspec.json.Encoder().encode


class Delivery:
    """One message of a durable consumer. Exactly one of ack, nak and term settles it."""

    __slots__ = (
        "_puller", "_reply", "data", "delivered", "headers", "seq", "settled", "stored_at_ms", "stream", "subject",
    )  # fmt: skip

    def __init__(self, puller: "Puller", message: Msg) -> None:
        tokens = message.reply.split(".")
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.… (v1) or with domain and account before it (v2)
        base = 2 if len(tokens) < 11 else 4
        self.stream = tokens[base]
        self.delivered = int(tokens[base + 2])
        self.seq = int(tokens[base + 3])
        self.stored_at_ms = int(tokens[base + 5]) // 1_000_000
        self.subject = message.subject
        self.data: bytes = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        self._reply = message.reply
        self._puller = puller
        self.settled = False

    def ack(self) -> None:
        """Done; it will not come again (unless the broker dies before it notes this)."""
        self._settle(b"+ACK")

    def nak(self, delay_s: float = 0.0) -> None:
        """Not now: deliver it again after `delay_s`."""
        self._settle(b'-NAK {"delay": %d}' % int(delay_s * 1e9) if delay_s else b"-NAK")

    def term(self, reason: str) -> None:
        """Never again."""
        self._settle(b"+TERM " + reason.encode())

    def in_progress(self) -> None:
        """Still at work: start the acknowledgement deadline anew."""
        if not self.settled:
            self._puller.link.send(self._reply, b"+WPI")

    def _settle(self, word: bytes) -> None:
        if not self.settled:
            self.settled = True
            self._puller.link.send(self._reply, word)
            self._puller.released()


class Puller:
    """Keeps pull requests open on one consumer and hands every message to `handler`, at most `credit` unsettled."""

    def __init__(
        self,
        link: Link,
        spec: ConsumerSpec,
        handler: Callable[[Delivery], None],
        *,
        credit: int | Callable[[], int],
        priority: int | None,
        log: Callable[[str], None],
    ) -> None:
        self.link, self.spec, self._handler, self._log = link, spec, handler, log
        self._credit = credit if callable(credit) else lambda: credit
        self.priority = priority
        self._unsettled = 0
        self._owed: dict[str, int] = {}
        self._heard_at = 0.0
        self._stopped = False
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None
        self._inbox = ""
        self._asked = 0
        self._subscription: Subscription | None = None
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.name}"

    @property
    def unsettled(self) -> int:
        """Messages handed out and not settled yet."""
        return self._unsettled

    async def start(self) -> None:
        """Begin to pull."""
        # Deliveries carry the subject they were stored under, not the inbox: they need a subscription of their own.
        self._inbox = self.link.client.new_inbox()
        self._subscription = await self.link.subscribe(f"{self._inbox}.*", self._on_message)
        self._heard_at = asyncio.get_running_loop().time()
        self._ask()
        self._watch()

    def stop(self) -> None:
        """Ask for no more; what was handed out can still be settled."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._owed.clear()

    async def drain(self, timeout_s: float = 5.0) -> None:
        """Ask for no more, hand out what the broker has sent already, then stop. Raises TimeoutError at the deadline.

        After `stop` alone, what still comes is thrown away and must wait for its acknowledgement deadline.
        """
        self._draining = True
        if self._subscription is not None and not self.link.client.is_closed:
            subscription, self._subscription = self._subscription, None
            async with asyncio.timeout(timeout_s):
                await self.link.drain(subscription)
        self.stop()

    async def close(self) -> None:
        """Stop, and drop the subscription; what is unsettled comes again elsewhere after its deadline."""
        self.stop()
        if self._subscription is not None and not self.link.client.is_closed:
            await self._subscription.unsubscribe()
            self._subscription = None

    def released(self) -> None:
        """A message was settled: there is credit again."""
        self._unsettled -= 1
        self.more()

    def more(self) -> None:
        """There may be more credit: ask, if nothing is asked for already."""
        if sum(self._owed.values()) <= 0:
            self._ask()

    def _ask(self) -> None:
        owed = sum(self._owed.values())
        count = min(PULL_MESSAGES_MAX, self._credit() - self._unsettled - owed)
        if self._stopped or self._draining or count <= 0 or owed > PULL_MESSAGES_MAX // 2:
            return
        body: dict[str, Any] = {
            "batch": count,
            "expires": int(EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        if "priority_groups" in self.spec.config:
            body["group"] = GROUP
            if self.priority is not None:
                body["priority"] = min(self.priority, 9)
        self._asked += 1
        reply = f"{self._inbox}.{self._asked}"
        self._owed[reply] = count
        self.link.send(self._subject, _ENCODE(body), reply=reply)

    def _on_message(self, message: Msg) -> None:
        if self._stopped:
            return  # never seen by the handler: the broker delivers it again
        self._heard_at = asyncio.get_running_loop().time()
        status = status_of(message)
        if status is None:
            self._on_delivery(message)
        elif status != "100":
            self._on_end(message, status)

    def _on_delivery(self, message: Msg) -> None:
        # Which pull a message answers is not in it; the broker serves them in order, so it is the oldest one.
        oldest = next(iter(self._owed), None)
        if oldest is not None:
            self._owed[oldest] -= 1
            if self._owed[oldest] <= 0:
                del self._owed[oldest]
        self._unsettled += 1
        delivery = Delivery(self, message)
        try:
            if sent_on(delivery.headers):
                self.link.forgeries.seen(delivery.stream, delivery.subject, delivery.seq)
                delivery.term("the broker put it here, and nobody who may")
            else:
                self._handler(delivery)
        except Exception as error:  # the edge: the message comes again, and its place is free meanwhile
            self.link.on_failure(f"{message.subject} was not taken in: {type(error).__name__}: {error}")
            delivery.nak(FAILED_DELAY_S)
        # With a part of the credit at a time: one pull for each message would cost as much as the message.
        if sum(self._owed.values()) <= min(PULL_MESSAGES_MAX, self._credit()) // 4:
            self._ask()

    def _on_end(self, message: Msg, status: str) -> None:
        """404, 408, 409, 503: one pull is over (expired, leader changed, server going down)."""
        self._owed.pop(message.subject, None)
        if status in ("409", "503"):
            self._log(f"pull on {self.spec.name}: {status} {(message.headers or {}).get('Description', '')}")
            asyncio.get_running_loop().call_later(RETRY_DELAY_S, self._ask)
        else:
            self._ask()

    def _watch(self) -> None:
        """The broker must speak at least every two heartbeats, else the request is lost: ask again."""
        if self._stopped or self._draining:
            return
        loop = asyncio.get_running_loop()
        if self._owed and loop.time() - self._heard_at > SILENCE_S:
            self._owed.clear()
            self._heard_at = loop.time()
        if not self._owed:
            self._ask()
        self._timer = loop.call_later(HEARTBEAT_S, self._watch)
