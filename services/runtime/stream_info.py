"""What the broker says of one stream, asked while something is wrong with it: a missing stream is no missing broker."""

import asyncio
from typing import Final

import msgspec
from nats.aio.msg import Msg

from contracts.errors import Rejected
from services.runtime.link import Link, status_of

LOOK_S: Final = 1.0
NO_STREAM: Final = 10059
"""JetStream's error code for a stream that does not exist."""


class State(msgspec.Struct):
    """How far the stream has come."""

    last_seq: int = 0


class Cluster(msgspec.Struct):
    """Its copies on other servers."""

    replicas: list[msgspec.Raw] = []


class Refusal(msgspec.Struct):
    """Why the broker says nothing of it."""

    err_code: int = 0


class StreamInfo(msgspec.Struct):
    """The part of STREAM.INFO that is used here."""

    state: State | None = None
    cluster: Cluster | None = None
    error: Refusal | None = None

    @property
    def absent(self) -> bool:
        """Whether the broker knows no such stream."""
        return self.error is not None and self.error.err_code == NO_STREAM


_DECODE: Final = msgspec.json.Decoder(StreamInfo).decode


async def stream_info(link: Link, stream: str) -> StreamInfo | None:
    """What the broker says of a stream; None when nobody says it in time."""
    first: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
    inbox = link.expect(lambda message: None if first.done() else first.set_result(message))
    try:
        if not link.client.is_connected or not link.send(f"$JS.API.STREAM.INFO.{stream}", b"", inbox):
            return None
        async with asyncio.timeout(LOOK_S):
            message = await first
        return _DECODE(message.data) if status_of(message) is None else None
    except (TimeoutError, msgspec.MsgspecError):
        return None
    finally:
        link.forget(inbox)


def missing(link: Link, stream: str) -> Rejected:
    """The refusal for a stream that is not there; whoever owns it is told as well."""
    link.on_absent(stream)
    return Rejected("stream_missing", f"the broker has no stream {stream}", stream=stream)


async def unreadable(link: Link, stream: str) -> Rejected:
    """Why a stream cannot be read: it is not there, or nobody answers for it."""
    info = await stream_info(link, stream)
    if info is not None and info.absent:
        return missing(link, stream)
    return Rejected("nats_unavailable", f"stream {stream} cannot be read now", stream=stream)
