"""Messages that cannot be handled: put aside where people look at them, counted, or left to come again."""

from contracts.errors import Rejected
from services.runtime.bus import Bus
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics
from services.runtime.pull import Delivery


class DeadLetters:
    """Puts messages of one service aside. What cannot be put aside now comes again in `again_s` seconds."""

    def __init__(self, bus: Bus, metrics: Metrics, log: Log, again_s: float) -> None:
        self._bus, self._metrics, self._log, self._again_s = bus, metrics, log, again_s

    async def put_aside(self, delivery: Delivery, code: str, detail: str) -> None:
        """End a delivery with the reason; it never fails."""
        self._log.warning("dead_letter", subject=delivery.subject, seq=delivery.seq, code=code)
        try:
            await self._bus.dead_letter(delivery, code, detail)
        except Rejected as error:  # it stays where it is and comes again
            self._log.warning("dead_letter_failed", code=error.code)
            delivery.nak(self._again_s)
        else:
            self._metrics.inc("htdag_dead_letters_total", stream=delivery.stream, reason=code)
