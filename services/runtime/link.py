"""One NATS connection as the rest of the runtime uses it: ordered sending without awaiting, and replies by callback.

nats-py's `publish` is a coroutine that spends some 20 us on checking headers, and its `request` waits with a task per
call; both are too slow for the hot path. Here a message is one protocol line appended to the client's own send queue,
which survives reconnects, all replies come in over one wildcard inbox, and a message is handled where it is read. The
queues and the flusher are private to nats-py: the version is pinned, and the integration tests fail when they change.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from contracts.errors import Rejected
from services.runtime.genuine import Forgeries
from services.runtime.nats_client import settle

UNSENT_BYTES_MAX: Final = 64 << 20
"""What may wait to be sent, above all while the connection is down; more is refused, never dropped."""


class Link:
    """Sends in order and routes replies. Start it before use; `close` is final."""

    def __init__(
        self,
        client: Client,
        log: Callable[[str], None] = lambda _: None,
        on_failure: Callable[[str], None] = lambda _: None,
        on_forged: Callable[[str, str, int], None] = lambda _stream, _subject, _seq: None,
        on_absent: Callable[[str], None] = lambda _stream: None,
    ) -> None:
        self.client = client
        self.forgeries = Forgeries(on_forged)
        self._log, self.on_failure, self.on_absent = log, on_failure, on_absent
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[str, Callable[[Msg], None]] = {}
        self._prefix = ""

    async def start(self) -> None:
        """Open the shared inbox."""
        self._prefix = self.client.new_inbox() + "."
        await self.subscribe(self._prefix + "*", self._on_reply)
        # A reply that overtakes its own subscription would be lost without an error.
        await settle(self.client, 5)

    async def close(self) -> None:
        """Close the connection; nats-py sends what waits before it does."""
        if self.client.is_closed:
            return
        try:
            await self.client.close()
        except OSError as error:
            # The broker went first: there is nothing left to say to it.
            self._log(f"connection lost while closing: {error}")

    def send(self, subject: str, data: bytes, reply: str = "", headers: Mapping[str, str] | None = None) -> bool:
        """Queue one message for sending, in order. False when too much waits already (nothing was queued).

        Raises Rejected too_large for a message that the broker would not take, bad_request for one that is malformed.
        """
        return self.send_block(subject, data, reply, header_block(header_text(headers)) if headers else b"")

    def send_block(self, subject: str, data: bytes, reply: str, block: bytes) -> bool:
        """`send` for headers that stand as they go over the wire: a `header_block`, or nothing."""
        client = self.client
        # The broker counts headers too, and closes the connection of whoever sends too much.
        if len(block) + len(data) > client.max_payload:
            size = len(block) + len(data)
            raise Rejected("too_large", "larger than the broker takes", bytes=size, max=client.max_payload)
        if not subject or " " in subject or not subject.isprintable():
            raise Rejected("bad_request", "not a subject", subject=subject)
        if client._pending_data_size > UNSENT_BYTES_MAX or client.is_closed:
            return False
        if block:
            line = b"HPUB %b %b %d %d\r\n%b" % (
                subject.encode(), reply.encode(), len(block), len(block) + len(data), block
            )  # fmt: skip
        else:
            line = b"PUB %b %b %d\r\n" % (subject.encode(), reply.encode(), len(data))
        client._pending.append(b"%b%b\r\n" % (line, data))
        client._pending_data_size += len(line) + len(data) + 2
        flusher: asyncio.Queue[Any] | None = client._flush_queue
        if flusher is not None and flusher.empty() and client.is_connected:
            # What else is queued in this turn of the loop leaves with the same write to the socket.
            flusher.put_nowait(self._loop.create_future())
        return True

    async def flush(self) -> None:
        """Wait until the broker has acted on everything queued so far."""
        await settle(self.client)

    async def drain(self, subscription: Subscription) -> None:
        """End a subscription so that every message the broker sent to it is still handled."""
        await self.client._send_unsubscribe(subscription._id)
        await self.flush()
        await subscription.drain()  # type: ignore[no-untyped-call]

    def expect(self, on_reply: Callable[[Msg], None]) -> str:
        """A fresh reply subject; `on_reply` gets every message that comes to it until `forget`."""
        reply = self._prefix + str(next(self._numbers))
        self._waiting[reply] = on_reply
        return reply

    def forget(self, reply: str) -> None:
        """Ignore what still comes to this reply subject."""
        self._waiting.pop(reply, None)

    async def subscribe(self, subject: str, on_message: Callable[[Msg], None], queue: str = "") -> Subscription:
        """A core subscription. `on_message` is called as soon as a message was read; it must be quick and not raise."""
        # Without a limit nothing is counted as pending: nothing ever waits.
        subscription = await self.client.subscribe(subject, queue=queue, cb=_never, pending_bytes_limit=0)
        waiting, direct = subscription._pending_queue, _Direct(on_message, self.on_failure)
        subscription._pending_queue = direct  # type: ignore[assignment]
        while not waiting.empty():
            direct.put_nowait(waiting.get_nowait())
        return subscription

    def _on_reply(self, message: Msg) -> None:
        on_reply = self._waiting.get(message.subject)
        if on_reply is not None:
            on_reply(message)


class _Direct:
    """Stands where nats-py keeps a subscription's queue, and hands each message on at once.

    The queue costs a switch of tasks per message, which is a third of what a message costs.
    """

    def __init__(self, on_message: Callable[[Msg], None], on_failure: Callable[[str], None]) -> None:
        self._on_message, self._on_failure = on_message, on_failure

    def put_nowait(self, message: Msg) -> None:
        """Handle one message. An exception here would end the client's read loop: it is told, and ends here."""
        try:
            self._on_message(message)
        except Exception as error:  # the edge of the connection
            self._on_failure(f"a handler of {message.subject} failed: {type(error).__name__}: {error}")

    async def get(self) -> Msg:
        """nats-py's own task waits here until the subscription ends: nothing ever comes this way."""
        never: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        return await never

    def qsize(self) -> int:
        """Nothing waits."""
        return 0

    def empty(self) -> bool:
        """Nothing waits."""
        return True

    async def join(self) -> None:
        """Everything was handled when it came."""


async def _never(_: Msg) -> None:
    """nats-py wants a coroutine; `_Direct` sees to the messages."""


def header_text(headers: Mapping[str, str]) -> str:
    """Headers, a line each; a line break in a value becomes a space, so that no value adds a header."""
    text = "".join([f"{key}: {value}\r\n" for key, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        text = "".join(f"{one_line(key)}: {one_line(value)}\r\n" for key, value in headers.items())
    return text


def header_block(text: str) -> bytes:
    """Lines of headers as they go over the wire."""
    return f"NATS/1.0\r\n{text}\r\n".encode()


def one_line(text: str) -> str:
    """The text as it may stand in a header."""
    return text.replace("\r", " ").replace("\n", " ")


def status_of(message: Msg) -> str | None:
    """The inline status of a control message ("404", "503", …), None for an ordinary message."""
    headers: dict[str, Any] | None = message.headers
    return headers.get("Status") if headers and not message.data else None
