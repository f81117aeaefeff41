"""One address of the bus, as data."""

from types import UnionType
from typing import Any, Literal, get_args

import msgspec

ChannelKind = Literal["message", "commit", "request"]


class ChannelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One address: which messages it carries, who says them, who listens, and the stream that keeps them.

    `kind` is "commit" when the messages are the events inside a commit, and "request" when the publisher gets `reply`.
    """

    name: str
    address: str
    messages: tuple[Any, ...]
    publishers: str
    consumers: str
    meaning: str
    kind: ChannelKind = "message"
    reply: tuple[Any, ...] = ()
    stream: str | None = None
    example: str = ""


def members(union: UnionType) -> tuple[Any, ...]:
    """The structs of a union, in the order they are written."""
    return get_args(union)
