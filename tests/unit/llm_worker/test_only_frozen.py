"""A worker that was only frozen, and answers after another one took its call over: what is said is what is paid."""

from typing import Any

import pytest

from contracts.ledger import LlmTakenOver
from services.llm_worker.ledger.decider import Reserve
from services.llm_worker.ledger.limits import Limits
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew
from tests.unit.llm_worker.test_taken_over import OWN, Hire, bus, hire, outcome, payments

__all__ = ["bus", "hire"]


async def in_mid_call(crew: Crew, corr_id: str = "c", **body: Any) -> int:
    """A worker asks a provider, which does not answer before its gate is opened. Where the request is stored."""
    crew.gate.open.clear()
    await crew.worker.start()
    seq = await crew.ask(corr_id, model="gpt", **body)
    await eventually(lambda: corr_id in crew.gate.calls)
    return seq


async def taken_over(first: Crew, second: Crew, seq: int) -> int:
    """The second worker's copy of the ledger takes the call over; the first one hears nothing. What it holds."""
    await second.book.load()
    held = second.book.state.open["c"]
    wish = Reserve("c", "w2", seq, "gpt", held.tokens, held.usd_micros, 40_000, Limits(), billed_by="openai")
    (event,) = await second.book.ask(wish)
    assert isinstance(event, LlmTakenOver)
    assert first.book.state.open["c"].worker_id == "w1"
    return held.usd_micros or 0


@pytest.mark.parametrize("schema", [None, {"type": "object"}], ids=["", "judged"])
async def test_who_was_only_frozen_says_what_the_asking_of_the_other_may_cost(hire: Hire, bus: Bus, schema: Any):
    first, second = hire(), hire()
    seq = await in_mid_call(first, params={"response_schema": schema} if schema else {})
    worst = await taken_over(first, second, seq)
    first.gate.open.set()
    bill = await outcome(first, "c")
    (paid,) = await payments(bus)
    assert bill["cost_usd_micros"] == paid.cost_usd_micros == OWN + worst
    assert bill["abandoned_usd_micros"] == worst
    await first.judge.close()
