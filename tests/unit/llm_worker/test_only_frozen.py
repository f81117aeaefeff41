"""A worker that was only frozen, and answers after another one took its call over: what is said is what is paid."""

from typing import Any

import msgspec
import pytest

from contracts.ledger import LlmTakenOver
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.journal import Key
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.decider import AskAgain, Reserve
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.payment import Pay
from services.llm_worker.second_asking import NotAsked
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew
from tests.unit.llm_worker.test_taken_over import OWN, Hire, hire, outcome, payments

__all__ = ["hire"]


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
    await second.book.ask(AskAgain("c", "w2", seq))
    first.gate.open.set()
    bill = await outcome(first, "c")
    (paid,) = await payments(bus)
    assert bill["cost_usd_micros"] == paid.cost_usd_micros == OWN + worst
    assert bill["abandoned_usd_micros"] == worst
    await first.judge.close()


async def test_who_takes_over_asks_nobody_when_it_finds_the_answer(hire: Hire, bus: Bus):
    first, second = hire(), hire(worker_id="w2")
    seq = await in_mid_call(first)
    await taken_over(first, second, seq)
    wire = {"run_id": "r", "node_id": "n-c", "corr_id": "c", "model_id": "gpt", "model_used": "gpt", "output": "done"}
    used = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, "cost_usd_micros": OWN}
    key = Key("r", "n-c", "c")
    data = msgspec.json.encode({**wire, **used})  # it had looked into the ledger a moment before it was taken over
    await first.journal.store(key, data, outcome="ok", model_used="gpt", request_seq=seq)
    flight = await second.delivered_again(seq)
    with pytest.raises(NotAsked) as found:
        await second.caller.answer(flight)
    assert found.value.entry is not None
    closing = second.cashier.close_journaled(flight, found.value.entry)
    assert closing is not None
    await closing
    assert second.gate.calls == []
    first.gate.open.set()
    bill = await outcome(first, "c")
    (paid,) = await payments(bus)
    assert bill["cost_usd_micros"] == paid.cost_usd_micros == OWN


async def test_who_is_asking_stops_when_another_one_has_answered(hire: Hire, bus: Bus):
    first, second = hire(), hire()
    seq = await in_mid_call(first)
    await second.book.load()
    used = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, "cost_usd_micros": OWN}
    data = msgspec.json.encode({"model_used": "gpt", "output": "of the other", **used})
    await second.journal.store(Key("r", "n-c", "c"), data, outcome="ok", model_used="gpt", request_seq=seq)
    await bus.follow(EVENTS_LLM_WORKER, SUBJECT, first.book.hear, after=first.book.seq)
    await second.book.ask(Pay("c", "w2", seq, "gpt", "openai", 1, 1, OWN))
    bill = await outcome(first, "c")  # the gate was never opened
    (paid,) = await payments(bus)
    assert (bill["output"], bill["cost_usd_micros"], paid.cost_usd_micros) == ("of the other", OWN, OWN)
    assert not first.worker.flights.all()


async def test_a_call_that_was_answered_and_paid_while_it_waited_here_is_not_asked_again(hire: Hire, bus: Bus):
    first = hire()
    await first.worker.start()
    seq = await first.ask("c", model="gpt")
    await outcome(first, "c")
    flight = await first.delivered_again(seq)
    with pytest.raises(NotAsked):
        await first.caller.answer(flight)
    assert first.gate.calls == ["c"]
    assert not first.book.state.open


async def test_a_copy_of_the_ledger_is_told_what_it_did_not_hear(hire: Hire):
    first, second = hire(), hire()
    for number in range(3):
        await second.book.ask(Pay(f"c{number}", "w2", number + 1, "gpt", "openai", 1, 1, OWN))
    assert first.book.seq < second.book.seq
    assert await first.book.catch_up()
    assert first.book.seq == second.book.seq
