"""Ends calls whose task is over: what nobody waits for any more must not go on.

The run's own log alone says that a task is over; whoever asks for a withdrawal only makes this gateway look at once.
It looks by itself too, so that nothing depends on a message that is lost or an executor that is dead.
"""

import asyncio
from collections import defaultdict
from typing import Final

from contracts.errors import Rejected
from contracts.policy import CallOf
from services.policy_gateway.calls.flights import Flight, Flights
from services.policy_gateway.run_facts import RunFacts
from services.runtime.lifecycle import Log

LOOK_EVERY_S: Final = 0.5
LOOKS_AT_ONCE_MAX: Final = 32
LOOKS_MAX: Final = 20
LOOK_AGAIN_S: Final = 0.05
"""A replica may be a moment behind the one that acknowledged the end of the task."""


class Withdrawals:
    """Withdraws calls that are under way in this process."""

    def __init__(self, flights: Flights, runs: RunFacts, log: Log) -> None:
        self._flights, self._runs, self._log = flights, runs, log

    async def watch(self) -> None:
        """Look at the runs that have calls under way, again and again, until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Rejected as error:
                if not failing:  # the deadline of each call holds all the same
                    self._log.warning("withdrawals_wait", code=error.code, reason=error.message)
                failing = True
            else:
                failing = False

    async def look(self) -> None:
        """Withdraw every call whose task is over. Raises Rejected when some run's log cannot be read."""
        runs: dict[str, list[Flight]] = defaultdict(list)
        for flight in self._flights.of_tasks():
            if flight.call.of is not None and not flight.withdrawn.done():
                runs[flight.call.of.run_id].append(flight)
        several = asyncio.Semaphore(LOOKS_AT_ONCE_MAX)

        async def look_at(run_id: str, flights: list[Flight]) -> None:
            async with several:
                over = await self._runs.over(run_id, [flight.call.of for flight in flights if flight.call.of])
            for flight in flights:
                if flight.call.of in over:
                    self._withdraw(flight, over[flight.call.of])

        # One log that cannot be read holds up no other, and nothing of this look is left when the next one begins.
        looks = (look_at(run_id, flights) for run_id, flights in runs.items())
        for outcome in await asyncio.gather(*looks, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def withdraw(self, call_id: str, of: CallOf) -> None:
        """Withdraw one call that is under way here. Raises Rejected("conflict") when its task goes on."""
        for _ in range(LOOKS_MAX):
            flight = self._flights.get(call_id)
            if flight is None or flight.withdrawn.done():
                return
            if why := (await self._runs.over(of.run_id, (of,))).get(of):
                self._withdraw(flight, why)
                return
            await asyncio.sleep(LOOK_AGAIN_S)
        raise Rejected("conflict", "the task of this call goes on", run_id=of.run_id, task_id=of.task_id)

    def _withdraw(self, flight: Flight, stale: Rejected) -> None:
        call = flight.call
        self._log.info("call_withdrawn", call=call.id, role=call.role, tool=call.tool, **stale.detail)
        flight.withdraw(Rejected("call_withdrawn", **stale.detail))
