"""The limits of one kind of attempt on one account, folded from what was judged. Pure.

Five judged attempts in any 60 seconds, successes included. Ten failures in a row lock for 15 minutes from the tenth;
the lock's end begins the count anew; further locks without a success double up to a day; 100 failures in a row lock
until a person on the host unlocks. What is refused here is not judged, not counted and extends nothing.
"""

from dataclasses import dataclass, field
from typing import Final

from contracts.errors import Rejected
from contracts.identity import (
    FAILURES_TO_LOCK,
    FAILURES_TO_LOCK_FOR_GOOD,
    JUDGED_PER_MINUTE_MAX,
    LOCK_FIRST_MS,
    LOCK_MAX_MS,
)

WINDOW_MS: Final = 60_000


@dataclass(slots=True)
class Limiter:
    """`failures` counts since the last success or the end of the last lock, `in_row` since the last success only."""

    judged: list[int] = field(default_factory=list)
    failures: int = 0
    in_row: int = 0
    locks: int = 0
    locked_until_ms: int = 0
    for_good: bool = False

    def now(self, now_ms: int) -> int:
        """A time that never goes back: a clock that does, here or in another replica, opens no window early."""
        return max(now_ms, self.judged[-1]) if self.judged else now_ms

    def check(self, now_ms: int) -> None:
        """Return when an attempt may be judged now; else raise Rejected locked or rate_limited."""
        latest_ms = self.now(now_ms)
        if self.for_good:
            raise Rejected("locked", until_ms=None, needs_unlock=True)
        if latest_ms < self.locked_until_ms:
            wait = seconds_up(self.locked_until_ms - now_ms)
            raise Rejected("locked", until_ms=self.locked_until_ms, retry_after=wait)
        recent = [at for at in self.judged if at > latest_ms - WINDOW_MS]
        if len(recent) >= JUDGED_PER_MINUTE_MAX:
            wait_ms = recent[-JUDGED_PER_MINUTE_MAX] + WINDOW_MS - now_ms
            raise Rejected("rate_limited", retry_after=seconds_up(wait_ms))

    def failures_with_this(self, now_ms: int) -> int:
        """The number in its row that a failure judged now has."""
        return 1 if self._lock_is_over(self.now(now_ms)) else self.failures + 1

    def lock_after_this(self, now_ms: int) -> tuple[bool, int | None]:
        """Whether a failure judged now locks, and until when; None is until a person unlocks."""
        if self.in_row + 1 >= FAILURES_TO_LOCK_FOR_GOOD:
            return True, None
        if self.failures_with_this(now_ms) < FAILURES_TO_LOCK:
            return False, None
        # Bounded before it is shifted: the count of a log is nobody's promise.
        length_ms = min(LOCK_FIRST_MS << min(self.locks, 20), LOCK_MAX_MS)
        return True, self.now(now_ms) + length_ms

    def succeeded(self, at_ms: int) -> None:
        """A judged success."""
        self._judged(at_ms)
        self.failures = self.in_row = self.locks = self.locked_until_ms = 0

    def failed(self, at_ms: int) -> None:
        """A judged failure."""
        over = self._lock_is_over(at_ms)
        self._judged(at_ms)
        self.failures = 1 if over else self.failures + 1
        self.in_row += 1
        if over:
            self.locked_until_ms = 0

    def locked(self, until_ms: int | None) -> None:
        """The last failure locked."""
        self.locks += 1
        if until_ms is None:
            self.for_good = True
        else:
            self.locked_until_ms = until_ms

    def cleared(self, at_ms: int) -> None:
        """A person on the host ended all of it; attempts of the last minute still count.

        Those that a clock which ran ahead put into the future count from now: else they would close it until then.
        """
        self.judged = [min(judged_ms, at_ms) for judged_ms in self.judged]
        self.failures = self.in_row = self.locks = self.locked_until_ms = 0
        self.for_good = False

    def is_locked(self, now_ms: int) -> bool:
        """Whether nothing is judged now because of a lock."""
        return self.for_good or self.now(now_ms) < self.locked_until_ms

    def _lock_is_over(self, now_ms: int) -> bool:
        return 0 < self.locked_until_ms <= now_ms

    def _judged(self, at_ms: int) -> None:
        self.judged = [*self.judged[-(JUDGED_PER_MINUTE_MAX - 1) :], at_ms]


def seconds_up(ms: int) -> int:
    """Whole seconds that are not shorter."""
    return -(-ms // 1000)
