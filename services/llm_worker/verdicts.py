"""Whether an answer is what its request asked for. Judging is our work, not the provider's.

Its provider has answered by then: it is told nothing of it, nothing of its is held meanwhile, and what we have no time
for becomes an outcome that shows the answer, never a timeout. The order is: keep the answer, pay it, judge it.
So whoever dies leaves what it heard to the next one, and nothing is paid that nobody has.
"""

from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmAnswer
from services.llm_worker.big_answers import put_aside
from services.llm_worker.flight import Flight
from services.llm_worker.judging.judge import SHOWN_CHARS_MAX, Judge
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.second_asking import NotAsked
from services.llm_worker.unjudged import KeptAnswer, Unjudged
from services.runtime import faults
from services.runtime.bus import Bus
from services.runtime.clock import Clock

LEAST_S: Final = 3.0
"""Time to judge an answer that came in the last moment. It is less than anybody waits beyond a timeout."""


class Verdicts:
    """Has schemas and answers judged for calls. `log` is structlog's."""

    def __init__(self, *, judge: Judge, cashier: Cashier, unjudged: Unjudged, bus: Bus, clock: Clock, log: Any) -> None:
        self._judge, self._cashier, self._unjudged = judge, cashier, unjudged
        self._bus, self._clock, self._log = bus, clock, log

    def full(self, flight: Flight) -> bool:
        """Whether too many wait for a judge already."""
        return flight.request.params.response_schema is not None and self._judge.crowded

    async def of_schema(self, flight: Flight, schema: dict[str, Any]) -> None:
        """Before anything is paid. Raises Rejected: invalid_request, or provider_overloaded when there is no time."""
        within_s = flight.request.params.timeout_ms / 1000
        await self._judge.check_schema(schema, asker=flight.asker, within_s=within_s)

    async def heard_before(self, flight: Flight, heard: KeptAnswer) -> LlmAnswer:
        """What another worker heard, as the answer of this call; whether or not it is paid, it is paid once.

        Raises NotAsked when it cannot be read now.
        """
        flight.has(heard)
        self._log.info("heard_elsewhere", corr_id=flight.key.corr_id)
        self._cashier.answered(flight, heard.said.answer)
        try:
            return await self._unjudged.whole(heard.said.answer)
        except Rejected as error:
            if error.code != "not_found":
                raise NotAsked(None) from error
            return heard.said.answer  # its beginning is all there is

    async def of_answer(self, flight: Flight, schema: dict[str, Any], answer: LlmAnswer) -> LlmAnswer:
        """The answer that counts, kept, paid and judged. Raises Rejected("output_invalid") with all of it."""
        if flight.heard is None:
            answer = await self._kept(flight, answer)
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
        return answer

    async def _kept(self, flight: Flight, answer: LlmAnswer) -> LlmAnswer:
        """Where the broker takes nothing the call goes on as others do: what it holds is held until it is journaled."""
        if flight.used is not None:  # an outcome that shows the answer costs what the answer does
            flight.used = flight.used._replace(cost_usd_micros=answer.cost_usd_micros)
        kept = await self._unjudged.keep(flight.key, answer, flight.request_seq, estimated=flight.used_guessed)
        faults.point("llm_worker.after_kept")
        if isinstance(kept, KeptAnswer):  # of somebody who was taken for dead, and is paid
            return await self.heard_before(flight, kept)
        if kept is not None:
            self._cashier.answered(flight, answer)
        return answer

    def hurry(self) -> None:
        """This worker stops: what is not judged by now is told so, rather than asked of its provider again."""
        self._judge.hurry()
