"""Time as an input: the real clock and a fixed one."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. Deciders never see it; handlers stamp their commands with it."""

    def now_ms(self) -> int:
        """UTC epoch in milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back, for durations and local deadlines."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """UTC epoch in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()


class FixedClock:
    """A clock that stands still until told otherwise; for tests and simulations."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """UTC epoch in milliseconds."""
        return self._now_ms

    def monotonic_s(self) -> float:
        """The same time, as seconds."""
        return self._now_ms / 1000

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass."""
        self._now_ms += ms


def rfc3339(at_ms: int) -> str:
    """`at_ms` as RFC 3339 UTC with milliseconds, e.g. `2026-11-20T17:00:00.123Z`."""
    whole, ms = divmod(at_ms, 1000)
    return f"{_second(whole)}.{ms:03d}Z"


@lru_cache(maxsize=8)
def _second(whole: int) -> str:
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}"
