"""Bounds of an actor host, in one place."""

from dataclasses import dataclass
from typing import Final

HEADERS_BYTES: Final = 8192
"""Room kept free in a message for its headers."""


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Bounds of one host. `idle_s` is how long an actor at rest stays in memory.

    Of those that are over at most `ended_max` stay that long, and together no more than `ended_weight_max`.
    """

    mailbox_messages_max: int = 20_000
    actors_max: int = 20_000
    ended_max: int = 100
    ended_weight_max: int = 1_000_000
    idle_s: float = 30.0
    conflicts_max: int = 20
    commit_bytes_max: int = (1 << 20) - HEADERS_BYTES
    snapshot_every_events: int = 20_000
