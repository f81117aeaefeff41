"""One NATS connection as the rest of the runtime uses it: ordered sending without awaiting, and replies by callback.

nats-py's `publish` is a coroutine and its `request` waits with a task per call; both are too slow for the hot path.
Here everything that is sent goes through one writer task, and all replies come in over one wildcard inbox.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

OUTBOX_MESSAGES_MAX: Final = 200_000
SLOW_CONSUMER_BYTES: Final = 512 << 20


class Link:
    """Sends in order and routes replies. Start it before use; `close` is final."""

    def __init__(self, client: Client, log: Callable[[str], None] = lambda _: None) -> None:
        self.client = client
        self._log = log
        self._outbox: deque[tuple[str, bytes, str, dict[str, str] | None]] = deque()
        self._idle: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[str, Callable[[Msg], None]] = {}
        self._prefix = ""
        self._written = asyncio.Event()
        self._written.set()
        self.dropped = 0

    async def start(self) -> None:
        """Open the shared inbox and start the writer."""
        self._prefix = self.client.new_inbox() + "."
        await self.client.subscribe(self._prefix + "*", cb=self._on_reply, pending_bytes_limit=SLOW_CONSUMER_BYTES)
        # A reply that overtakes its own subscription would be lost without an error.
        await self.client.flush(5)
        self._writer = asyncio.create_task(self._write(), name="link-writer")

    async def close(self) -> None:
        """Send what waits, then close the connection."""
        if self._writer is not None:
            if self._outbox and self.client.is_connected:
                await asyncio.sleep(0)
            self._writer.cancel()
            await asyncio.wait([self._writer], timeout=1)
        if not self.client.is_closed:
            await self.client.close()

    def send(self, subject: str, data: bytes, reply: str = "", headers: Mapping[str, str] | None = None) -> bool:
        """Queue one message for sending, in order. False when the outbox is full (nothing was queued)."""
        if len(self._outbox) >= OUTBOX_MESSAGES_MAX:
            self.dropped += 1
            return False
        self._outbox.append((subject, data, reply, dict(headers) if headers else None))
        self._written.clear()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        return True

    @property
    def waiting(self) -> int:
        """Messages that are queued and not handed to the connection yet."""
        return len(self._outbox)

    async def flush(self) -> None:
        """Wait until everything queued so far was handed over and the broker has answered a ping behind it."""
        await self._written.wait()
        await self.client.flush()

    def expect(self, on_reply: Callable[[Msg], None]) -> str:
        """A fresh reply subject; `on_reply` gets every message that comes to it until `forget`."""
        reply = self._prefix + str(next(self._numbers))
        self._waiting[reply] = on_reply
        return reply

    def forget(self, reply: str) -> None:
        """Ignore what still comes to this reply subject."""
        self._waiting.pop(reply, None)

    async def subscribe(
        self, subject: str, on_message: Callable[[Msg], Awaitable[None]], queue: str = ""
    ) -> Subscription:
        """A core subscription; callbacks of one subscription run one after another."""
        return await self.client.subscribe(subject, queue=queue, cb=on_message, pending_bytes_limit=SLOW_CONSUMER_BYTES)

    async def _on_reply(self, message: Msg) -> None:
        on_reply = self._waiting.get(message.subject)
        if on_reply is not None:
            on_reply(message)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._outbox:
                subject, data, reply, headers = self._outbox[0]
                try:
                    await self.client.publish(subject, data, reply, headers=headers)
                except nats.errors.OutboundBufferLimitError:
                    # Disconnected and nats-py's own buffer is full: hold on, in order, until the connection is back.
                    await asyncio.sleep(0.1)
                    continue
                except (nats.errors.Error, ValueError) as error:
                    self._log(f"message to {subject} not sent: {type(error).__name__}: {error}")
                    if self.client.is_closed:
                        return
                self._outbox.popleft()
            self._written.set()
            self._idle = loop.create_future()
            await self._idle


def status_of(message: Msg) -> str | None:
    """The inline status of a control message ("404", "503", …), None for an ordinary message."""
    headers: dict[str, Any] | None = message.headers
    return headers.get("Status") if headers and not message.data else None
