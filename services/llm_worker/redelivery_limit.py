"""How often a message has broken us: it is tried again for a while."""

from collections import OrderedDict
from typing import Final

from contracts.limits import DEAD_LETTER_DELIVERIES_MAX

REMEMBERED_MAX: Final = 10_000


class RedeliveryLimit:
    """Counts by the message's place in the stream; of those that broke us longest ago nothing is known any more."""

    def __init__(self) -> None:
        self._times: OrderedDict[int, int] = OrderedDict()

    def again(self, seq: int) -> bool:
        """Note one more; whether the message may be tried again. One that may not is forgotten."""
        times = self._times.pop(seq, 0) + 1
        if times >= DEAD_LETTER_DELIVERIES_MAX:
            return False
        self._times[seq] = times
        if len(self._times) > REMEMBERED_MAX:
            self._times.popitem(last=False)
        return True
