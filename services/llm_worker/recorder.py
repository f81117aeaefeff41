"""An answer that is there must be kept: it is written until the journal has it, and who waits hears of a full disk."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmAnswer, LlmError
from services.llm_worker.flight import Flight, Waiter
from services.llm_worker.journal import OK, Journal
from services.llm_worker.replies import reply
from services.runtime.bus import Bus
from services.runtime.publisher import Stored
from services.runtime.pull import Delivery

AGAIN_S: Final = 1.0
PATIENCE_S: Final = 600.0
TOLD_REMEMBERED_MAX: Final = 10_000
_ENCODE: Final = msgspec.json.Encoder().encode


class Recorder:
    """Writes answers into the journal. `log` is structlog's."""

    def __init__(self, *, bus: Bus, journal: Journal, log: Any) -> None:
        self._bus, self._journal, self._log = bus, journal, log
        self._told: OrderedDict[int, None] = OrderedDict()

    async def keep(self, flight: Flight, answer: LlmAnswer | LlmError, told: Callable[[], Awaitable[bytes]]) -> Stored:
        """Write `answer` as it is `told`. It is paid: rather wait for the disk or the broker than pay again.

        It is told anew for each try: while we wait, another worker may have taken the call over. Raises Rejected when
        that takes longer than PATIENCE_S, and what `told` raises.
        """
        outcome = str(answer.error["code"]) if isinstance(answer, LlmError) else OK
        used = "" if isinstance(answer, LlmError) else answer.model_used
        loop = asyncio.get_running_loop()
        last_s = loop.time() + PATIENCE_S
        while True:
            data = await told()
            try:
                return await self._journal.store(
                    flight.key,
                    data,
                    outcome=outcome,
                    model_used=used,
                    request_seq=flight.request_seq,
                    trace=flight.trace,
                )
            except Rejected as error:
                self._log.warning("journal_unwritable", code=error.code, corr_id=flight.key.corr_id)
                if error.code == "storage_full":
                    self.tell_full(flight, "the answer is there, but the broker has no room to keep it")
                if loop.time() > last_s:
                    raise
                await asyncio.sleep(AGAIN_S)

    def tell_full(self, flight: Flight, message: str) -> None:
        """Whoever waits at an inbox hears it now and nothing more; the same corr_id gets the answer once it is kept."""
        error = flight.error(Rejected("storage_full", message).to_wire())
        for number, waiter in enumerate(flight.waiters):
            if waiter.reply:
                reply(self._bus, self._log, waiter.reply, _ENCODE(error))
                flight.waiters[number] = waiter._replace(reply="")
                self._told[waiter.delivery.seq] = None
                if len(self._told) > TOLD_REMEMBERED_MAX:
                    self._told.popitem(last=False)

    def waiter(self, delivery: Delivery, run_id: str) -> Waiter:
        """Who waits for the answer to `delivery`: an inbox that has heard something already waits no more."""
        waiter = Waiter.of(delivery, run_id)
        return waiter._replace(reply="") if delivery.seq in self._told else waiter
