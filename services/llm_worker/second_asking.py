"""Who carries out a call that another worker had begun asks nobody, or asks no further, once that one has answered.

A worker that says nothing for a while is taken for dead, and may only have been frozen, or busy. So the journal is
looked into once more when the taking over is stored: from then on whoever answers knows of it, and its answer says so.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from contracts.errors import Rejected
from services.llm_worker.flight import Flight, Flights
from services.llm_worker.journal import Journal, Key, settles
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.unjudged import KeptAnswer, Unjudged
from services.runtime.event_store import Recorded


class NotAsked(Exception):
    """A call is not for this worker to be made: it has an outcome (`entry`), or nobody can say yet (None)."""

    def __init__(self, entry: Recorded | None) -> None:
        super().__init__("the call was under way elsewhere")
        self.entry = entry


class SecondAsking:
    """Looks for what other workers answered. `log` is structlog's."""

    def __init__(self, *, journal: Journal, unjudged: Unjudged, cashier: Cashier, log: Any) -> None:
        self._journal, self._unjudged, self._cashier, self._log = journal, unjudged, cashier, log
        self._stopping: set[asyncio.Task[None]] = set()

    async def look(self, flight: Flight, until_s: float) -> None:
        """Before a provider is asked. Raises NotAsked, and Rejected like Cashier.reserve."""
        if not self._cashier.may_be_answered(flight):
            return
        paid = self._cashier.is_paid(flight)
        entry = await self._found(flight)
        if entry is None and await self._is_heard(flight):
            raise NotAsked(None)  # it comes again in a moment, and is judged then
        if entry is not None or not await self._cashier.ask_again(flight, until_s, anew=paid):
            raise NotAsked(entry)

    async def heard(self, flights: Sequence[Flight]) -> tuple[dict[Key, KeptAnswer], Sequence[Flight]]:
        """What other workers heard for these calls and did not see through, and those of which nobody can tell now."""
        judged = [flight for flight in flights if flight.request.params.response_schema is not None]
        try:
            return await self._unjudged.find_many([flight.key for flight in judged]), ()
        except Rejected as error:  # the broker is away, or this stream is: calls that nobody judges go on
            self._log.warning("unjudged_unreadable", code=error.code, requests=len(judged))
            return {}, judged

    def watch(self, flights: Flights) -> None:
        """Stop what is being asked here when the ledger has heard of its end from elsewhere."""

        def ended(corr_id: str) -> None:
            flight = flights.of(corr_id)
            if flight is not None and flight.phase == "calling":
                stopping = asyncio.create_task(self._stop(flight), name="llm-second-asking")
                self._stopping.add(stopping)
                stopping.add_done_callback(self._stopping.discard)

        self._cashier.book.ended = ended

    async def _stop(self, flight: Flight) -> None:
        try:
            entry = await self._found(flight)
        except NotAsked:
            return  # it goes on, and finds the other answer when it records its own
        if entry is None or flight.phase != "calling" or flight.cancelled or flight.task is None:
            return
        self._log.info("answered_elsewhere", corr_id=flight.key.corr_id)
        flight.answered = entry
        flight.task.cancel()

    async def _found(self, flight: Flight) -> Recorded | None:
        try:
            entry = await self._journal.find(flight.key)
        except Rejected as error:
            self._log.warning("journal_unreadable", code=error.code, corr_id=flight.key.corr_id)
            raise NotAsked(None) from None
        return entry if entry is not None and settles(entry, flight.request_seq) else None

    async def _is_heard(self, flight: Flight) -> bool:
        heard, unknown = await self.heard([flight])
        if unknown:
            raise NotAsked(None)
        return bool(heard)
