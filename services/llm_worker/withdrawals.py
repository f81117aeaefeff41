"""Wishes that calls be stopped, kept: a call outlives the workers that heard the wish, and so must the wish.

A wish is said, kept, and said once more. So whoever listens hears it, and whoever takes the call over later, because
all that heard it are gone, finds it before a provider is asked; who looked for it too early hears it again. Only of
requests that are older than this worker's connection, or that another one had, anything can have been said unheard: a
fresh one costs no look.
"""

import asyncio
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.requests import CorrRef
from contracts.streams import LLM_WITHDRAWALS
from contracts.subjects import llm_withdrawn
from services.llm_worker.claims import Claims
from services.llm_worker.flight import Flight, Flights
from services.llm_worker.second_asking import NotAsked
from services.runtime.bus import Bus

LOOK_EVERY_S: Final = 1.0
_ENCODE: Final = msgspec.json.Encoder().encode


class Withdrawals:
    """Keeps wishes, and finds those that this worker has not heard. `log` is structlog's."""

    def __init__(self, *, bus: Bus, flights: Flights, claims: Claims, log: Any) -> None:
        self._bus, self._flights, self._claims, self._log = bus, flights, claims, log
        self._reconnects = bus.client.stats["reconnects"]

    async def keep(self, wish: CorrRef) -> None:
        """Have whoever takes this call over know that nobody wants it. Raises Rejected when it cannot be stored."""
        await self._bus.store(
            llm_withdrawn(wish.corr_id), _ENCODE(wish), stream=LLM_WITHDRAWALS, msg_id=f"withdrawn:{wish.corr_id}"
        )

    async def look(self, flight: Flight) -> None:
        """Before a provider is asked: stop a call of which that was said unheard. Raises NotAsked: nobody can say."""
        if flight.cancelled:
            return
        try:
            if not await self._claims.may_be_late(flight.waiters[0].delivery):
                return
            kept = await self._bus.last(LLM_WITHDRAWALS, llm_withdrawn(flight.key.corr_id))
        except Rejected as error:
            self._log.warning("withdrawal_unknown", code=error.code, corr_id=flight.key.corr_id)
            raise NotAsked(None) from None
        if kept is not None:
            self._log.info("call_withdrawn", corr_id=flight.key.corr_id)
            flight.cancel()

    async def watch(self) -> None:
        """Look after calls under way whenever our connection was lost: what was said meanwhile nobody heard here."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            reconnects = self._bus.client.stats["reconnects"]
            if reconnects == self._reconnects:
                continue
            try:
                await self._stop_withdrawn()
            except Rejected as error:
                self._log.warning("withdrawals_wait", code=error.code)
            else:
                self._reconnects = reconnects

    async def _stop_withdrawn(self) -> None:
        calls = {llm_withdrawn(flight.key.corr_id): flight for flight in self._flights.all()}
        if not calls:
            return
        for subject in await self._bus.last_of_many(LLM_WITHDRAWALS, list(calls)):
            self._flights.cancel(calls[subject].key.corr_id)
