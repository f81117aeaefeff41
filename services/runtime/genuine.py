"""Telling a stored fact from one that was smuggled in.

Whoever may ask the broker for a message names the subject its answer goes to, and the broker checks that subject
against nobody's rights: so a service could store a lie in its own stream and have it sent into another's. But what we
store names its stream, and the broker refuses it anywhere else: a lie names its own stream, or none. A message of the
very stream may be sent to another of its subjects; but what the broker hands out it marks, and a stored one with that
mark was put there by the broker, at somebody's bidding.

A lie is not believed, and it stops nobody: it keeps its place in the stream, reads as a commit that says nothing, and
whoever appends passes over it. It is told once, counted, and shown by `htdag doctor` and `htdag policy verify`.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from contracts.commit import HEADER_TYPES, Commit
from contracts.streams import (
    CONVERSATIONS,
    FACTS,
    LLM_CACHE,
    LLM_RESPONSES,
    LLM_UNJUDGED,
    LLM_WITHDRAWALS,
    SNAPSHOTS,
)
from services.runtime.event_store import Recorded

HEADER_STREAM: Final = "Nats-Expected-Stream"
HANDED_OUT: Final = "Nats-Stream"
"""The mark: the broker adds this header to all that it hands out by a direct get, and to nothing else."""
_NAME: Final = f"{HEADER_STREAM}:".encode()
_MARK: Final = f"{HANDED_OUT}:".encode()
GUARDED: Final = frozenset((*FACTS, SNAPSHOTS, CONVERSATIONS, LLM_RESPONSES, LLM_UNJUDGED, LLM_CACHE, LLM_WITHDRAWALS))
"""The streams whose messages are only believed when their owner stored them."""
TOLD_MAX: Final = 10_000
"""So many smuggled messages a process remembers to have told of."""
_NOTHING: Final = msgspec.json.encode(Commit[None](at="1970-01-01T00:00:00.000Z", by="", cause="", corr="", events=[]))
_SAYS_NOTHING: Final[Mapping[str, str]] = {HEADER_TYPES: ""}


def genuine(stream: str, headers: Mapping[str, str]) -> bool:
    """Whether a stored message was put into this stream by somebody who may write there."""
    return stream not in GUARDED or headers.get(HEADER_STREAM) == stream


def sent_on(headers: Mapping[str, str]) -> bool:
    """Whether a message that a consumer delivers, with its headers as they are stored, was put there by the broker."""
    return HANDED_OUT in headers


def times_handed_out(block: bytes) -> int:
    """How often the broker has marked a block of headers, as it came over the wire.

    Counted anywhere in it: the broker writes behind whatever is there, and who leaves a line without an end has the
    mark stand in the middle of it, where no reader of headers would see one.
    """
    return block.count(_MARK)


def stream_named(block: bytes) -> str:
    """The stream that a block of headers, as it came over the wire, names; "" when the broker has not seen it.

    The broker takes the first place where the name stands, and none at all where that is no beginning of a line. A
    reader that is kinder would believe what nobody has checked. What was handed out twice names none: it was stored by
    the broker in between, wherever somebody wanted it.
    """
    if times_handed_out(block) > 1:
        return ""
    at = block.find(_NAME)
    if block[max(at - 2, 0) : max(at, 0)] != b"\r\n":
        return ""
    end = block.find(b"\r\n", at)
    return block[at + len(_NAME) : max(end, 0)].strip(b" ").decode("utf-8", "replace")


def void(seq: int, subject: str) -> Recorded:
    """What is read in the place of a smuggled message."""
    return Recorded(seq, subject, _NOTHING, _SAYS_NOTHING, forged=True)


def redirected(headers: Mapping[str, str], reply: str) -> bool:
    """Whether a request is really a stored message that somebody had the broker send here."""
    return HANDED_OUT in headers or reply.startswith("$")


class Forgeries:
    """Tells of each smuggled message once, however often it is read."""

    def __init__(self, tell: Callable[[str, str, int], None]) -> None:
        self._tell = tell
        self._told: dict[tuple[str, int], None] = {}

    def seen(self, stream: str, subject: str, seq: int) -> None:
        """A smuggled message was read."""
        if (stream, seq) in self._told:
            return
        if len(self._told) >= TOLD_MAX:
            del self._told[next(iter(self._told))]
        self._told[stream, seq] = None
        self._tell(stream, subject, seq)
