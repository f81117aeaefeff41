"""How many requests each model may hold here: one slow model must not keep all places of this worker."""

from collections import Counter
from typing import Final

from services.llm_worker.models import Resolved

DELAY_MAX_S: Final = 4.0
DOUBLINGS_MAX: Final = 3


class Crowd:
    """Counts the calls of every model that has slots of its own: those at the provider and those that wait for it."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._calls: Counter[str] = Counter()

    def full(self, resolved: Resolved) -> bool:
        """Whether one more call would wait behind too many. A model without slots only knows the worker's bound."""
        slots = resolved.config.slots
        return slots is not None and self._calls[resolved.used] >= slots + self._waiting_max

    def enter(self, resolved: Resolved) -> None:
        """A call begins to wait."""
        self._calls[resolved.used] += 1

    def leave(self, resolved: Resolved) -> None:
        """A call is over."""
        self._calls[resolved.used] -= 1
        if not self._calls[resolved.used]:
            del self._calls[resolved.used]


def delay_s(delivered: int) -> float:
    """For how long a request is put off that was delivered so many times: a long queue must not come every second."""
    return min(DELAY_MAX_S, float(1 << min(delivered - 1, DOUBLINGS_MAX)))


def waited_s(delivered: int) -> float:
    """For how long it was put off before, at most."""
    early = min(delivered - 1, DOUBLINGS_MAX)
    return sum(delay_s(number) for number in range(1, early + 1)) + (delivered - 1 - early) * DELAY_MAX_S
