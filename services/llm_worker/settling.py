"""The end of a request: its run is told, the ledger has what it cost, and only then the broker may forget it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.streams import COMMANDS
from services.llm_worker.flight import Flight
from services.llm_worker.ledger.cashier import Closing
from services.llm_worker.mailbox import take_of
from services.runtime import telemetry
from services.runtime.bus import Bus

LATER_S: Final = 1.0
_ENCODE: Final = msgspec.json.Encoder().encode


class Settling:
    """Acknowledges requests whose answer is journaled. `broken` sees to those that this code cannot carry through."""

    def __init__(self, bus: Bus, log: Any, broken: Callable[[Flight], None]) -> None:
        self._bus, self._log, self._broken = bus, log, broken

    def when(self, flight: Flight, closing: Closing) -> None:
        """Acknowledge as soon as the ledger has it."""
        closing.add_done_callback(partial(self.now, flight))

    def now(self, flight: Flight, closing: Closing | None = None) -> None:
        """Acknowledge; when the ledger has it not, the request comes again, and its answer is found in the journal."""
        failed = closing is not None and (closing.cancelled() or closing.exception() is not None)
        for waiter in flight.waiters:
            if failed:
                waiter.delivery.nak(LATER_S)
            else:
                waiter.delivery.ack()

    async def tell_run(self, flight: Flight, mailbox: str, data: bytes, closing: Closing | None) -> None:
        """Put the answer into the mailbox of its run, then acknowledge."""
        try:
            await self._store_answer(flight, mailbox, data)
            if closing is not None:
                await closing
        except Rejected as error:
            self._log.warning("mailbox_unwritable", code=error.code, corr_id=flight.key.corr_id)
            for waiter in flight.waiters:
                waiter.delivery.nak(LATER_S)
        except Exception:  # a journaled answer that we cannot read: somebody else wrote it
            self._broken(flight)
        else:
            self.now(flight)

    async def _store_answer(self, flight: Flight, mailbox: str, data: bytes) -> None:
        take = take_of(flight.key.corr_id, data)
        headers = {telemetry.TRACEPARENT: flight.trace} if flight.trace else None
        msg_id = f"answer:{flight.key.corr_id}"
        await self._bus.store(mailbox, _ENCODE(take), stream=COMMANDS, msg_id=msg_id, headers=headers)
