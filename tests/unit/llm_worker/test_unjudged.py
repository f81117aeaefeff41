"""An answer that was heard and not judged: whoever takes the call over judges it, asks nobody, and pays it once."""

import json
from typing import Any

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.llm import HEADER_DEADLINE, LlmAnswer, Usage
from contracts.streams import LLM_UNJUDGED
from contracts.subjects import LLM_TOKENS_EDGE
from services.llm_worker.journal import Key
from services.llm_worker.ledger.cashier import charge_of
from services.llm_worker.ledger.payment import Pay
from services.llm_worker.ledger.state import call_mark
from services.llm_worker.second_asking import NotAsked
from services.runtime.bus import Bus, Message
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import LIFTED, Crew
from tests.unit.llm_worker.test_taken_over import OWN, WORST, Hire, died, given_up, hire, outcome, payments

__all__ = ["hire"]

SHAPE = {"response_schema": {"type": "object"}}
GOOD = '{"a":1}'


def answer(corr_id: str = "c", output: str = GOOD, cost: int | None = OWN) -> LlmAnswer:
    key = Key("r", f"n-{corr_id}", corr_id)
    return LlmAnswer(*key, "gpt", "gpt", output, [], Usage(1, 1, 2), cost, "stop", 1.0)


async def left(
    crew: Crew, corr_id: str = "c", output: str = GOOD, *, paid: bool = True, params: Any = SHAPE, **ask: Any
) -> int:
    """A worker reserved this call, kept what it heard, paid for it or not, and is gone. Where its request is."""
    seq = await crew.ask(corr_id, model="gpt", params=params, **ask)
    await died(crew, corr_id, seq)
    said = answer(corr_id, output)
    key = Key(said.run_id, said.node_id, corr_id)
    assert await crew.unjudged.keep(key, said, seq, estimated=False) is said
    if paid:
        await crew.book.ask(Pay(corr_id, "dead", seq, "gpt", "openai", 1, 1, OWN))
    return seq


async def sole(crew: Crew, bus: Bus, corr_id: str = "c") -> dict[str, Any]:
    """What the outcome says of money: the ledger says the same, once, and nobody was asked."""
    bill = await outcome(crew, corr_id)
    (paid,) = await payments(bus)
    assert bill["cost_usd_micros"] == paid.cost_usd_micros == OWN
    assert (bill["usage"]["total_tokens"], paid.tokens, bill.get("abandoned_tokens")) == (2, 2, None)
    assert crew.gate.calls == []
    assert (crew.book.state.open, crew.book.state.held) == ({}, {})
    return bill


@pytest.mark.parametrize("paid", [False, True], ids=["unpaid", "paid"])
@pytest.mark.parametrize(("output", "code"), [(GOOD, None), ("red", "output_invalid")])
async def test_it_is_judged_by_the_next_worker(hire: Hire, bus: Bus, paid: bool, output: str, code: str | None):
    crew = hire()
    await left(crew, output=output, paid=paid)
    await crew.worker.start()
    bill = await sole(crew, bus)
    assert (bill.get("code"), bill["output"]) == (code, output)


async def test_who_has_given_up_hears_what_was_paid_all_the_same(hire: Hire, bus: Bus):
    crew = hire()
    await left(crew, headers={HEADER_DEADLINE: "1"})
    await crew.worker.start()
    assert (await sole(crew, bus))["output"] == GOOD


async def test_a_call_that_was_cancelled_meanwhile_says_what_it_cost(hire: Hire, bus: Bus):
    crew = hire()
    await left(crew)
    crew.worker.flights.cancel("c")
    await crew.worker.start()
    assert (await sole(crew, bus))["code"] == "cancelled"


async def test_the_same_call_asked_for_once_more_has_the_same_answer(hire: Hire, bus: Bus):
    """Its second request is delivered first; what was heard stays the answer to the first one."""
    crew = hire()
    await left(crew, paid=False)
    await crew.ask("c", model="gpt", params=SHAPE, attempt=2)
    await crew.worker.start()
    assert (await sole(crew, bus))["output"] == GOOD


async def test_a_payment_that_the_state_has_forgotten_is_not_made_again(hire: Hire, bus: Bus, monkeypatch):
    crew = hire()
    seq = await left(crew)
    monkeypatch.setattr("services.llm_worker.ledger.state.CLOSED_MAX", 1)
    del crew.book.state.closed[call_mark("c", seq)]
    await crew.worker.start()
    assert (await sole(crew, bus))["output"] == GOOD


async def test_an_output_too_big_for_one_message_is_judged_whole(hire: Hire, bus: Bus):
    crew = hire()
    output = json.dumps({"a": "x" * (1 << 20)})
    await left(crew, output=output)
    await crew.worker.start()
    bill = await sole(crew, bus)
    assert (bill["finish_reason"], bill["output_ref"]["bytes"]) == ("stop", len(output))


async def test_whoever_watches_sees_all_of_it(hire: Hire, bus: Bus):
    crew, seen = hire(), list[dict[str, Any]]()

    def watch(heard: Message) -> None:
        seen.append(msgspec.json.decode(heard.data))

    await bus.subscribe(f"{LLM_TOKENS_EDGE}.r.n-c", watch)
    await left(crew, params={**SHAPE, "stream": True})
    await crew.worker.start()
    await sole(crew, bus)
    await eventually(lambda: len(seen) == 2)
    assert seen == [{"chunk": GOOD, "seq": 1, "done": False}, {"chunk": "", "seq": 2, "done": True}]


async def test_what_nobody_takes_up_is_paid_as_it_was_heard(hire: Hire, bus: Bus):
    crew = hire()
    await left(crew, paid=False)
    await given_up(crew, bus)
    await crew.worker.start()
    error = await sole(crew, bus)
    assert (error["code"], error["output"]) == ("provider_error", GOOD)


async def test_who_heard_a_second_answer_passes_on_the_first_one(hire: Hire, bus: Bus):
    """Its worker was only frozen: it is paid for both askings, and both workers say the same."""
    crew = hire()
    crew.gate.output = '{"b":2}'
    crew.gate.open.clear()
    seq = await crew.ask("c", model="gpt", params=SHAPE)
    await died(crew, "c", seq)
    await crew.worker.start()
    await eventually(lambda: crew.gate.calls == ["c"])
    await crew.unjudged.keep(Key("r", "n-c", "c"), answer(), seq, estimated=False)
    await crew.book.ask(Pay("c", "dead", seq, "gpt", "openai", 1, 1, OWN))
    crew.gate.open.set()
    bill = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert bill["output"] == GOOD
    assert bill["cost_usd_micros"] == paid.cost_usd_micros == OWN + WORST


async def test_who_takes_over_in_the_moment_it_is_kept_asks_nobody(hire: Hire, bus: Bus):
    crew = hire()
    seq = await crew.ask("c", model="gpt", params=SHAPE)
    flight = await crew.delivered_again(seq)  # nothing was kept when it looked first
    held = await crew.cashier.wish(flight, charge_of(flight))
    await crew.book.ask(held._replace(worker_id="dead"))
    await crew.unjudged.keep(flight.key, answer(), seq, estimated=False)
    with pytest.raises(NotAsked):
        await crew.caller.answer(flight)
    await crew.worker.start()
    await sole(crew, bus)


@pytest.mark.parametrize(("output", "code"), [(GOOD, None), ("red", "output_invalid")])
async def test_what_cannot_be_kept_is_not_paid_before_it_is_journaled(hire: Hire, bus: Bus, output: str, code: Any):
    crew = hire()
    await bus.api(f"STREAM.DELETE.{LLM_UNJUDGED}")
    crew.gate.output = output
    flight = await crew.delivered_again(await crew.ask("c", model="gpt", params=SHAPE))
    said = await crew.caller.answer(flight)
    assert await payments(bus) == []
    assert list(crew.book.state.open) == ["c"]
    closing = crew.cashier.close(flight, await crew.cashier.told(flight, said))
    assert closing is not None
    await closing
    (paid,) = await payments(bus)
    bill = msgspec.to_builtins(said)
    bill = bill.get("error", bill)
    assert (paid.cost_usd_micros, bill["cost_usd_micros"], bill.get("code")) == (OWN, OWN, code)


async def test_nothing_is_asked_while_nobody_can_tell_what_was_heard(hire: Hire, bus: Bus):
    crew = hire()
    await bus.api(f"STREAM.DELETE.{LLM_UNJUDGED}")
    with pytest.raises(Rejected):
        await crew.unjudged.find(Key("r", "n-c", "c"))
    await crew.worker.start()
    await crew.ask("c", model="gpt", params=SHAPE)
    await crew.ask("plain", model="gpt")
    await eventually(lambda: crew.answer("plain"))
    assert crew.gate.calls == ["plain"]


async def test_what_cannot_be_read_is_asked_for_as_if_it_were_not_there(hire: Hire, bus: Bus):
    crew = hire()
    crew.gate.output = GOOD
    seq = await left(crew, paid=False)
    kept = await bus.at(LLM_UNJUDGED, 1)
    assert kept is not None
    await bus.store(kept.subject, b"[]", stream=LLM_UNJUDGED, msg_id="spoiled")
    await crew.worker.start()
    bill = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert (crew.gate.calls, paid.request_seq) == (["c"], seq)
    assert bill["cost_usd_micros"] == paid.cost_usd_micros == OWN + WORST


async def test_without_limits_it_is_kept_and_paid_once_too(hire: Hire, bus: Bus):
    crew = hire(limits=LIFTED, own={"honours_idempotency_key": True})
    crew.gate.output = GOOD
    await crew.worker.start()
    await crew.ask("c", model="gpt", params=SHAPE)
    bill = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert (bill["output"], paid.cost_usd_micros) == (GOOD, OWN)
    kept = await crew.unjudged.find(Key("r", "n-c", "c"))
    assert kept is not None
    assert kept.said.answer.output == GOOD
