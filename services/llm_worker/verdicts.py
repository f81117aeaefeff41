"""Whether an answer is what its request asked for. Judging is our work, not the provider's.

Its provider has answered by then: it is told nothing of it, nothing of its is held meanwhile, and what we have no time
for becomes an outcome that shows the answer, never a timeout.
"""

from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmAnswer
from services.llm_worker.big_answers import put_aside
from services.llm_worker.flight import Flight
from services.llm_worker.judging.judge import SHOWN_CHARS_MAX, Judge
from services.llm_worker.ledger.cashier import Cashier
from services.runtime.bus import Bus
from services.runtime.clock import Clock

LEAST_S: Final = 3.0
"""Time to judge an answer that came in the last moment. It is less than anybody waits beyond a timeout."""


class Verdicts:
    """Has schemas and answers judged for calls. `log` is structlog's."""

    def __init__(self, *, judge: Judge, cashier: Cashier, bus: Bus, clock: Clock, log: Any) -> None:
        self._judge, self._cashier, self._bus, self._clock, self._log = judge, cashier, bus, clock, log

    def full(self, flight: Flight) -> bool:
        """Whether too many wait for a judge already."""
        return flight.request.params.response_schema is not None and self._judge.crowded

    async def of_schema(self, flight: Flight, schema: dict[str, Any]) -> None:
        """Before anything is paid. Raises Rejected: invalid_request, or provider_overloaded when there is no time."""
        within_s = flight.request.params.timeout_ms / 1000
        await self._judge.check_schema(schema, asker=flight.asker, within_s=within_s)

    async def of_answer(self, flight: Flight, schema: dict[str, Any], answer: LlmAnswer) -> None:
        """After everything is paid. Raises Rejected("output_invalid") with all of the answer."""
        self._cashier.answered(flight, answer)
        left_s = (flight.request.params.timeout_ms - answer.latency_ms) / 1000
        try:
            await self._judge.check_answer(
                schema, answer.output, answer.finish_reason, asker=flight.asker, within_s=max(left_s, LEAST_S)
            )
        except Rejected as error:
            if len(answer.output) > SHOWN_CHARS_MAX:
                ref = await put_aside(self._bus, self._clock, self._log, answer)
                if ref is not None:
                    error.detail = {**error.detail, "output_ref": msgspec.to_builtins(ref)}
            raise

    def hurry(self) -> None:
        """This worker stops: what is not judged by now is told so, rather than asked of its provider again."""
        self._judge.hurry()
