"""One way to connect to NATS: the options that survive restarts, and callbacks that never raise."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from contracts.errors import Rejected
from contracts.rights import INBOX
from services.runtime import server_url
from services.runtime.genuine import HANDED_OUT, HEADER_STREAM, stream_named, times_handed_out
from services.runtime.nkeys import KeyPair

CONNECT_TRY_S: Final = 2.0
ROUND_TRIP_S: Final = 10
CANCEL_AGAIN_S: Final = 0.1
_PLAIN: Final = b"NATS/1.0\r\n"
_SPACE: Final = " \t\r\n\v\f"
PENDING_BYTES_MAX: Final = 64 << 20


class _Watch:
    """Callbacks of one connection. nats-py ends its read loop when a callback raises, so none does."""

    def __init__(self, on_reconnect: Callable[[], None], on_closed: Callable[[], None], log: Callable[[str], None]):
        self.on_reconnect, self.on_closed, self.log = on_reconnect, on_closed, log
        self.denied = False

    async def error(self, error: Exception) -> None:
        """Note an asynchronous error; remember a refused login."""
        text = f"{type(error).__name__}: {error}"
        if "authorization" in text.lower() or "authentication" in text.lower():
            self.denied = True
        self.log(text)

    async def reconnected(self) -> None:
        """The connection is back."""
        self.on_reconnect()

    async def closed(self) -> None:
        """The connection is gone for good."""
        self.on_closed()


class ToughClient(Client):
    """A client that no message can make deaf, and that reads headers as the broker does.

    nats-py ends its read loop at a subject that is no UTF-8, and at headers that are none (2.16): until it is connected
    anew it hears nothing, for half a minute. One such message by anybody who may publish below a wildcard that others
    hear would be enough, and one in a stream would come again and again. It also strips the names of headers, so that
    it sees some that the broker did not see and has not checked; and it looks at each of their characters.
    """

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except Exception as error:  # the edge of the connection: this message cannot be handled, the next one can
            await self._error_cb(error)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return Msg(
            _client=self, subject=subject.decode(errors="replace"), reply=reply.decode(errors="replace"), data=data,
            headers=headers, _sid=sid,
        )  # fmt: skip

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        if not headers:
            return None
        if headers.startswith(_PLAIN):
            parsed: dict[str, str] | None = self._parse_header_lines(headers[len(_PLAIN) :])
        else:
            parsed = await super()._process_headers(headers)
        if parsed and HEADER_STREAM in parsed:
            parsed[HEADER_STREAM] = stream_named(headers)
        if times_handed_out(headers):
            parsed = {HANDED_OUT: "", **(parsed or {})}
        return parsed

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """Names are tokens of ASCII, a line that begins with none is left out; of a name said twice the last counts.

        What the broker adds to a message that it hands out stands last, so nobody can say it in the broker's place.
        """
        headers: dict[str, str] = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon and name.isascii() and name.split() == [name]:
                headers[name] = value.strip(_SPACE)
        return headers


class _KeyClient(ToughClient):
    """A client that logs in by an NKey.

    nats-py signs with its optional package nkeys only; without it, it takes a callback for the signature but has no
    argument for the public key that belongs into CONNECT beside it (2.16).
    """

    def __init__(self, key: KeyPair) -> None:
        super().__init__()
        self._public_nkey = key.public
        self._auth_configured = True


def _ignore(*_: object) -> None:
    return None


async def connect(
    url: str,
    *,
    name: str,
    user: str | None = None,
    password: str | None = None,
    key: KeyPair | None = None,
    inbox: str = INBOX,
    on_reconnect: Callable[[], None] = _ignore,
    on_closed: Callable[[], None] = _ignore,
    log: Callable[[str], None] = _ignore,
    deadline_s: float | None = 5.0,
) -> Client:
    """Connect, trying again until `deadline_s` (None: for ever).

    `key` comes before user and password where the broker knows keys. Replies go to subjects below `inbox`.

    Raises Rejected("bad_config") for what is no URL, Rejected("nats_unavailable") when nobody answers in time and
    Rejected("nats_denied") when the server refuses the credentials.
    """
    server_url.check(url)
    loop = asyncio.get_running_loop()
    end = None if deadline_s is None else loop.time() + deadline_s
    delay = 0.05
    while True:
        watch = _Watch(on_reconnect, on_closed, log)
        try:
            return await _in_time(_connect_once(url, name, user, password, key, inbox, watch))
        except (OSError, TimeoutError, nats.errors.Error) as error:
            text = str(error).lower()
            if watch.denied or "authorization" in text or "authentication" in text:
                raise Rejected("nats_denied") from error
            log(f"no NATS server yet: {type(error).__name__}")
        if end is not None and loop.time() + delay > end:
            raise Rejected("nats_unavailable")
        await asyncio.sleep(delay)
        delay = min(delay * 2, 1.0)


async def settle(client: Client, round_trip_s: int = ROUND_TRIP_S) -> None:
    """Wait until the broker has acted on everything sent so far, and all that it sent before is here.

    nats-py writes the PING of `flush` ahead of what still waits for its flusher (2.16): after one round trip a
    subscription may still be on its way, and what others publish meanwhile is lost for it. The second PING goes last.
    """
    await client.flush(round_trip_s)
    await client.flush(round_trip_s)


async def _in_time(connecting: Coroutine[Any, Any, Client]) -> Client:
    """One try. Raises TimeoutError at its end, also when it is cancelled in vain."""
    task = asyncio.ensure_future(connecting)
    try:
        await asyncio.wait([task], timeout=CONNECT_TRY_S)
    except asyncio.CancelledError:
        await _unwound(task)
        if not task.cancelled() and task.exception() is None:
            await _closed(task.result())  # nobody gets this client, so nobody else could close it
        raise
    await _unwound(task)
    if task.cancelled():
        raise TimeoutError
    return task.result()


async def _unwound(task: asyncio.Task[Client]) -> None:
    """Cancel until it is over.

    nats-py swallows a cancellation that reaches it while it closes a connection, which it does after every refused
    login, and then goes on trying for ever (2.16).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)


async def _closed(client: Client) -> None:
    with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):
        async with asyncio.timeout(CONNECT_TRY_S):
            await client.close()


async def _connect_once(
    url: str, name: str, user: str | None, password: str | None, key: KeyPair | None, inbox: str, watch: _Watch
) -> Client:
    client = ToughClient() if key is None else _KeyClient(key)
    await client.connect(
        url.split(","),
        name=name,
        user=user,
        password=password,
        signature_cb=None if key is None else key.sign,
        inbox_prefix=inbox,
        # The first connect is bounded by our caller; afterwards the client comes back by itself, for ever.
        allow_reconnect=True,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,  # type: ignore[arg-type]  # a fraction is as good: it sleeps so long
        connect_timeout=int(CONNECT_TRY_S),
        ping_interval=10,
        max_outstanding_pings=2,
        pending_size=PENDING_BYTES_MAX,
        error_cb=watch.error,
        reconnected_cb=watch.reconnected,
        closed_cb=watch.closed,
    )
    return client
