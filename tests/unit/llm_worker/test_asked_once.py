"""Whatever breaks in us after a provider was asked: it is asked once, its call has an outcome, the ledger knows it."""

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest

from contracts.errors import Rejected
from services.llm_worker import genai, outcomes, worker
from services.llm_worker.billing import Biller
from services.llm_worker.config import Config
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.prices import Prices
from services.llm_worker.providers.protocol import Delta
from services.llm_worker.worker import CONSUMER
from services.runtime import faults
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew

MODEL = "mock:price=0.05/call"
RUN = {"Htdag-Answer-To": "htdag.v1.cmd.executor.run.r.answer"}
LIMITED = LimitsConfig(usd_per_day=1.0, requests_per_minute=0, concurrent=0)


@pytest.fixture
async def crew(bus: Bus) -> AsyncIterator[Crew]:
    crew = Crew(bus, Config(limits=LIMITED))
    await crew.worker.start()
    crew.gate.open.set()
    yield crew
    faults.disarm()


def broken(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("it broke")


async def broken_later(*_: Any, **__: Any) -> NoReturn:
    broken()


PLACES = {
    "pricing": lambda _: (Prices, "cost_micros", broken_later),
    "billing": lambda _: (Biller, "bill", broken_later),
    "telling the span": lambda _: (genai.Inference, "answered", broken),
    "telling the span its tokens": lambda _: (genai.Inference, "used", broken),
    "ending the span": lambda _: (genai.Inference, "ended", broken),
    "tool calls": lambda _: (outcomes, "normalised", broken),
    "counting": lambda crew: (crew.caller, "_count", broken),
    "metrics": lambda crew: (crew.metrics, "observe", broken),
    "the breaker": lambda crew: (crew.breakers, "succeeded", broken_later),
    "putting aside": lambda _: (worker, "slim", broken_later),
    "ending the tokens": lambda crew: (crew.caller, "_end", broken_later),
    "a chunk": lambda _: (genai.Inference, "chunk", broken),
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_provider_is_asked_once_whatever_breaks_after_it_answered(crew, monkeypatch, place):
    if place == "the breaker":
        monkeypatch.setattr(crew.breakers, "is_well", lambda _: False)
    owner, name, instead = PLACES[place](crew)
    spoil = lambda: monkeypatch.setattr(owner, name, instead)  # noqa: E731
    said = crew.gate.stream

    async def then_break(call: Any) -> Any:
        async for piece in said(call):
            spoil()
            yield piece

    crew.gate.stream = then_break
    await crew.ask("c", model=MODEL, params={"stream": True})
    answer = await eventually(lambda: crew.answer("c"))
    await eventually(lambda: _settled(crew))
    assert crew.gate.calls == ["c"]
    if "output" not in answer:
        assert (answer["error"]["code"], answer["error"]["usage"]["completion_tokens"] > 0) == ("internal", True)
    assert not crew.book.state.open
    (spent,) = (spent for account, spent in crew.book.state.spent.items() if account.startswith("day/"))
    assert (spent.calls, spent.usd_micros) == (1, 50_000)


async def test_an_error_at_the_end_of_the_call_is_its_outcome(crew):
    faults.arm("llm_worker.after_answer", broken)
    await crew.ask("c", model=MODEL)
    answer = await eventually(lambda: crew.answer("c"))
    await eventually(lambda: _settled(crew))
    assert (crew.gate.calls, answer["error"]["code"]) == (["c"], "internal")
    assert crew.book.state.spent
    assert not crew.book.state.open


@pytest.mark.parametrize(("said_before", "asked"), [(True, 1), (False, 2)])
async def test_an_error_that_was_paid_is_the_answer_of_its_call_and_a_free_one_is_tried_again(crew, said_before, asked):
    async def break_off(call: Any) -> Any:
        crew.gate.calls.append(call.request.corr_id)
        if said_before:
            yield Delta("some words")
        raise Rejected("provider_error", "it broke off")

    crew.gate.stream = break_off
    await crew.ask("c", model=MODEL, headers=RUN)
    first = await eventually(lambda: crew.answer("c"))
    await eventually(lambda: _settled(crew))
    again = await crew.ask("c", model=MODEL, headers=RUN, params={})
    await eventually(lambda: _settled_to(crew, again))
    assert crew.gate.calls == ["c"] * asked
    assert ("usage" in first["error"]) is said_before
    calls = [spent.calls for account, spent in crew.book.state.spent.items() if account.startswith("day/")]
    assert calls == ([1] if said_before else [])


async def test_half_a_character_is_no_reason_to_ask_again(crew):
    crew.gate.output = "half \ud83d of it"
    await crew.ask("c", model=MODEL, params={"stream": True})
    answer = await eventually(lambda: crew.answer("c"))
    await eventually(lambda: _settled(crew))
    assert (crew.gate.calls, answer["output"]) == (["c"], "half ? of it")


async def test_an_answer_that_the_broker_does_not_carry_is_paid(crew, monkeypatch):
    monkeypatch.setattr(worker, "HEADROOM_BYTES", crew.bus.payload_max - 300)
    crew.gate.output = "x" * 400
    await crew.ask("c", model=MODEL)
    answer = await eventually(lambda: crew.answer("c"))
    await eventually(lambda: _settled(crew))
    assert answer["error"]["code"] == "too_large"
    (spent,) = (spent for account, spent in crew.book.state.spent.items() if account.startswith("day/"))
    assert (crew.gate.calls, spent.usd_micros) == (["c"], 50_000)


async def _settled_to(crew: Crew, seq: int) -> bool:
    info = await crew.bus.api(f"CONSUMER.INFO.{CONSUMER.stream}.{CONSUMER.name}")
    return bool(info["ack_floor"]["stream_seq"] >= seq)


async def _settled(crew: Crew) -> bool:
    return await crew.unsettled() == 0
