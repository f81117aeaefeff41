"""Calls that are under way in this process: who asks for the same call again waits for the same answer."""

import asyncio
from typing import NamedTuple

from services.policy_gateway.calls.answers import Answer
from services.policy_gateway.calls.call import Call


class Flight(NamedTuple):
    """One call under way, and its answer to come."""

    call: Call
    answer: "asyncio.Future[Answer]"


class Flights:
    """By the id of the call."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def get(self, call_id: str) -> Flight | None:
        """The call under way with this id."""
        return self._flights.get(call_id)

    def future(self, call_id: str) -> "asyncio.Future[Answer] | None":
        """The answer to come of a call under way."""
        flight = self._flights.get(call_id)
        return flight.answer if flight else None

    def begin(self, call: Call) -> Flight:
        """A call begins here."""
        flight = self._flights[call.id] = Flight(call, asyncio.get_running_loop().create_future())
        return flight

    def end(self, flight: Flight, answer: Answer) -> None:
        """It has its answer."""
        self._flights.pop(flight.call.id, None)
        if not flight.answer.done():
            flight.answer.set_result(answer)
