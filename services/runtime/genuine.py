"""Telling a stored fact from one that was smuggled in.

Whoever may ask the broker for a message names the subject its answer goes to, and the broker checks that subject
against nobody's rights: so a service could store a lie in its own stream and have it sent into another's. But what we
store names its stream, and the broker refuses it anywhere else: a lie names its own stream, or none.
"""

from collections.abc import Mapping
from typing import Final

from contracts.streams import STREAMS

HEADER_STREAM: Final = "Nats-Expected-Stream"
GUARDED: Final = frozenset(spec.name for spec in STREAMS if spec.config.get("deny_purge"))
"""The streams of facts: only their owners write them."""


def genuine(stream: str, headers: Mapping[str, str]) -> bool:
    """Whether a stored message was put into this stream by somebody who may write there."""
    return stream not in GUARDED or headers.get(HEADER_STREAM) == stream


def redirected(headers: Mapping[str, str], reply: str) -> bool:
    """Whether a request is really a stored message that somebody had the broker send here."""
    return "Nats-Stream" in headers or reply.startswith("$")
