"""Calls that are under way in this process: who asks for the same call again waits for the same answer."""

import asyncio
from collections import deque
from typing import Final, NamedTuple

from contracts.errors import Rejected
from contracts.limits import TOOL_ASK_AGAIN_S
from services.policy_gateway.calls.answers import Answer
from services.policy_gateway.calls.call import Call

LISTENS_S: Final = 1.5 * TOOL_ASK_AGAIN_S
"""So long somebody who asked listens at least. Then it has asked again, and what it sent first only takes up room."""


class _Asker(NamedTuple):
    since_s: float
    answer: "asyncio.Future[Answer | None]"

    def tell(self, answer: Answer | None) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Flight(NamedTuple):
    """One call under way, its answer to come, and who waits for it; `withdrawn` will say why it has to end, if so."""

    call: Call
    answer: "asyncio.Future[Answer]"
    askers: deque[_Asker]
    withdrawn: "asyncio.Future[Rejected]"

    def withdraw(self, why: Rejected) -> None:
        """Nobody needs this call any more."""
        if not self.withdrawn.done():
            self.withdrawn.set_result(why)


class Flights:
    """By the id of the call."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def get(self, call_id: str) -> Flight | None:
        """The call under way with this id."""
        return self._flights.get(call_id)

    def of_tasks(self) -> list[Flight]:
        """All calls under way that belong to a task."""
        return [flight for flight in self._flights.values() if flight.call.of is not None]

    def future(self, call_id: str) -> "asyncio.Future[Answer] | None":
        """The answer to come of a call under way."""
        flight = self._flights.get(call_id)
        return flight.answer if flight else None

    def begin(self, call: Call) -> Flight:
        """A call begins here."""
        loop = asyncio.get_running_loop()
        flight = Flight(call, loop.create_future(), deque(), loop.create_future())
        self._flights[call.id] = flight
        return flight

    def join(self, flight: Flight) -> "asyncio.Future[Answer | None]":
        """The answer for one more who asks. Those who asked more than LISTENS_S before are let go, with None."""
        loop = asyncio.get_running_loop()
        while flight.askers and flight.askers[0].since_s + LISTENS_S < loop.time():
            flight.askers.popleft().tell(None)
        asker = _Asker(loop.time(), loop.create_future())
        flight.askers.append(asker)
        return asker.answer

    def end(self, flight: Flight, answer: Answer) -> None:
        """It has its answer."""
        self._flights.pop(flight.call.id, None)
        if not flight.answer.done():
            flight.answer.set_result(answer)
        for asker in flight.askers:
            asker.tell(answer)
