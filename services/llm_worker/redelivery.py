"""Requests that get no outcome here: back to the broker for another worker, again later, or put aside for a person."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmError
from contracts.subjects import llm_request, model_of
from services.llm_worker import compile as compiler
from services.llm_worker.claims import Claims
from services.llm_worker.flight import Flight, Flights, Waiter
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.redelivery_limit import RedeliveryLimit
from services.llm_worker.replies import reply
from services.runtime.bus import Bus
from services.runtime.dead_letters import DeadLetters
from services.runtime.metrics import Metrics
from services.runtime.pull import Delivery

LATER_S: Final = 1.0
REQUESTS: Final = llm_request("")[:-1]
"""Below this, requests are stored: what stands behind it is the model."""
_ENCODE: Final = msgspec.json.Encoder().encode


class Redelivery:
    """Gives requests out of this worker's hands. `spawn` begins what the worker ends before it stops."""

    def __init__(
        self,
        *,
        bus: Bus,
        metrics: Metrics,
        log: Any,
        flights: Flights,
        claims: Claims,
        cashier: Cashier,
        spawn: Callable[[Any], Any],
    ) -> None:
        self._bus, self._log, self._flights = bus, log, flights
        self._claims, self._cashier, self._spawn = claims, cashier, spawn
        self._limit = RedeliveryLimit()
        self._dead_letters = DeadLetters(bus, metrics, log, LATER_S)

    def give_back(self, flight: Flight, delay_s: float) -> None:
        """Leave a call to whoever gets it next. What was held for it is free before that, if nobody was asked."""
        self._flights.remove(flight)
        letting_go = self._cashier.let_go(flight)
        if letting_go is None:
            self._nak(flight, delay_s)
        else:
            self._spawn(self._nak_after(letting_go, flight, delay_s))

    def later(self, delivery: Delivery) -> None:
        """What broke us is tried again for a while, then put aside. To be put off for lack of room is no failure."""
        if self._limit.again(delivery.seq):
            delivery.nak(LATER_S)
            return
        error = Rejected("internal")
        answer = compiler.refusal(delivery.data, error, model_id=model_of(delivery.subject, REQUESTS))
        self.put_aside(delivery, error, answer)

    def put_aside(self, delivery: Delivery, error: Rejected, answer: LlmError) -> None:
        """Tell whoever waits, and keep the request where a person finds it."""
        waiter = Waiter.of(delivery, "")
        reply(self._bus, self._log, waiter.reply, _ENCODE(answer))
        self._spawn(self._dead_letters.put_aside(delivery, error.code, error.message))

    def _nak(self, flight: Flight, delay_s: float) -> None:
        for waiter in flight.waiters:
            self._claims.gave_back(waiter.delivery)
            waiter.delivery.nak(delay_s)

    async def _nak_after(self, letting_go: Any, flight: Flight, delay_s: float) -> None:
        try:
            await letting_go
        except Exception as error:  # then the next one charges for it, which is the safe side
            self._log.warning("not_let_go", reason=str(error), corr_id=flight.key.corr_id)
        self._nak(flight, delay_s)
