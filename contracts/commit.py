"""The commit: one stored message that carries all events of one decision."""

from typing import Final, Generic, TypeVar

import msgspec

E = TypeVar("E")

HEADER_TYPES: Final = "Htdag-Types"
"""Distinct type tags of a commit's events, comma separated, in order of first appearance."""
HEADER_REPLY: Final = "Htdag-Reply-To"
"""Inbox of the caller that waits for the outcome of a durable message."""
HEADER_SUMMARY: Final = "Htdag-Summary"
"""Compact JSON: what a list shows of the aggregate after this commit."""
HEADER_BY: Final = "Htdag-By"
"""Principal that sent a durable message."""
HEADER_CORRELATION: Final = "Htdag-Corr"
HEADER_REASON: Final = "Htdag-Reason"
"""Code under which a message became a dead letter."""


class Commit(msgspec.Struct, Generic[E], frozen=True, omit_defaults=True):
    """What one decision wrote. `at` is RFC 3339 UTC; `cause` is the id of the message that led to it."""

    at: str
    by: str
    cause: str
    corr: str
    events: list[E]
