"""When a pool grows and when it shrinks. Pure: the clock comes in.

It grows as long as calls wait, one copy after the other with a pause between, because a new one needs a moment to
help. It shrinks when for a long while nothing waited and somebody had nothing to do: coming and going costs more than
staying.
"""

from typing import Final, NamedTuple

from services.console.supervision.scale import Bounds

WAIT_MS: Final = 300
"""A shorter wait is no reason: it would be over before a new copy could help."""
BUSY_S: Final = 1.0
PAUSE_S: Final = 4.0
IDLE_S: Final = 30.0


class Signal(NamedTuple):
    """What the pool says of itself: calls that wait (in the broker too), the longest wait, copies without any call."""

    waiting: int = 0
    wait_ms: int = 0
    idle: int = 0


class Autoscaler:
    """Decides for one pool. `idle_s` is how long quiet must last."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._busy_since: float | None = None
        self._idle_since: float | None = None
        self._acted_s = float("-inf")

    def decide(self, bounds: Bounds, copies: int, signal: Signal, now_s: float) -> int:
        """1: add a copy, -1: let one go, 0: leave it. Outside of the bounds nothing is waited for."""
        if copies < bounds.least:
            return 1
        if copies > bounds.most:
            return -1
        busy = signal.waiting > 0 and signal.wait_ms >= WAIT_MS
        idle = signal.waiting == 0 and signal.idle > 0
        self._busy_since = (self._busy_since or now_s) if busy else None
        self._idle_since = (self._idle_since or now_s) if idle else None
        if now_s - self._acted_s < PAUSE_S:
            return 0
        if copies < bounds.most and self._busy_since is not None and now_s - self._busy_since >= BUSY_S:
            return self._act(1, now_s)
        if copies > bounds.least and self._idle_since is not None and now_s - self._idle_since >= self._idle_s:
            return self._act(-1, now_s)
        return 0

    def _act(self, step: int, now_s: float) -> int:
        # What was seen belongs to the pool as it was.
        self._acted_s, self._busy_since, self._idle_since = now_s, None, None
        return step
