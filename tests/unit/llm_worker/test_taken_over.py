"""Whatever becomes of a call that a dead worker had begun: its answer says what the ledger says, to the cent."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import structlog
from msgspec import structs

from contracts.ledger import LlmPaid, LlmTakenOver
from contracts.llm import HEADER_DEADLINE
from contracts.streams import EVENTS_LLM_WORKER, LLM_RESPONSES
from services.llm_worker import recorder
from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.decider import Reserve
from services.llm_worker.ledger.limits import Limits, LimitsConfig
from services.llm_worker.ledger.opening import CODEC
from services.llm_worker.ledger.orphans import SILENT_MAX, YOUNG_MS, Orphans
from services.llm_worker.worker import Worker
from services.runtime.bus import Bus
from services.runtime.clock import SystemClock
from services.runtime.metrics import Metrics
from services.runtime.ports import Observer, Silent
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import LIFTED, Crew

GPT = ModelConfig(provider="openai", price_in_usd_per_mtok=1, price_out_usd_per_mtok=2)
OWN, WORST = 3, 100_000
"""What the gate's one and one tokens cost, and what the dead worker held."""
Hire = Callable[..., Crew]


class Later(SystemClock):
    """Nothing is young any more."""

    def now_ms(self) -> int:
        return super().now_ms() + YOUNG_MS + 1


async def given_up(crew: Crew, bus: Bus) -> None:
    """Long enough nobody has taken up what dead workers left."""
    orphans = Orphans(
        bus=bus, cashier=crew.cashier, journal=crew.journal, unjudged=crew.unjudged, flights=crew.worker.flights,
        clock=Later(), metrics=Metrics(), log=structlog.get_logger(),
    )  # fmt: skip
    for _ in range(SILENT_MAX + 1):
        await orphans.look()


@pytest.fixture
async def hire(bus: Bus) -> AsyncIterator[Hire]:
    crews: list[Crew] = []

    def one(
        usd_per_day: float = 1.0,
        limits: LimitsConfig | None = None,
        own: dict[str, Any] | None = None,
        observer: Observer | None = None,
        worker_id: str = "w1",
        **more: Any,
    ) -> Crew:
        limits = limits or LimitsConfig(usd_per_day=usd_per_day, requests_per_minute=0, concurrent=0)
        config = Config(limits=limits, models={"gpt": structs.replace(GPT, **(own or {}))}, **more)
        crew = Crew(bus, config, worker_id, observer)
        crew.providers.put("openai", crew.gate)
        crew.gate.open.set()
        crews.append(crew)
        return crew

    yield one
    for crew in crews:
        crew.writing.cancel()
        await crew.judge.close()


class StopsWhenTakenOver(Silent):
    """Stops the worker in the very moment in which its taking over of a call is stored."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    def committed(self, events: Sequence[Any], seconds: float) -> None:
        """See Observer."""
        if self.worker is not None and any(isinstance(event, LlmTakenOver) for event in events):
            for flight in self.worker.flights.all():
                assert flight.task is not None
                flight.task.cancel()


async def died(crew: Crew, corr_id: str, seq: int) -> None:
    """A worker reserved this call, and is gone."""
    wish = Reserve(corr_id, "dead", seq, "gpt", 900, WORST, 40_000, Limits(), run_id="r", node_id=f"n-{corr_id}")
    await crew.book.ask(wish._replace(billed_by="openai"))


async def outcome(crew: Crew, corr_id: str) -> dict[str, Any]:
    """What the answer says of money, when the request is settled."""
    answer = await eventually(lambda: crew.answer(corr_id))

    async def settled() -> bool:
        return await crew.unsettled() == 0

    await eventually(settled)
    bill: dict[str, Any] = answer.get("error", answer)
    return bill


async def payments(bus: Bus) -> list[LlmPaid]:
    return [
        event
        async for record in bus.history(EVENTS_LLM_WORKER, SUBJECT)
        for event in CODEC.decode(record.data).events
        if isinstance(event, LlmPaid)
    ]


async def test_the_answer_costs_what_both_askings_may_have_cost(hire: Hire, bus: Bus):
    crew = hire()
    await died(crew, "c", await crew.ask("c", model="gpt"))
    await crew.worker.start()
    answer = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert answer["cost_usd_micros"] == paid.cost_usd_micros == OWN + WORST
    assert (answer["abandoned_usd_micros"], answer["abandoned_tokens"]) == (WORST, 900)
    assert (answer["usage"]["total_tokens"], paid.tokens, crew.gate.calls) == (2, 902, ["c"])
    assert not crew.book.state.held


async def test_a_second_asking_that_does_not_fit_is_refused_and_the_first_one_is_paid(hire: Hire, bus: Bus):
    crew = hire(usd_per_day=(WORST + 1) / 1_000_000)
    await died(crew, "c", await crew.ask("c", model="gpt"))
    await crew.worker.start()
    error = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert (error["code"], crew.gate.calls) == ("budget_exceeded", [])
    assert error["cost_usd_micros"] == error["abandoned_usd_micros"] == paid.cost_usd_micros == WORST
    assert error["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert not crew.book.state.open


async def test_a_call_that_is_not_begun_again_is_paid_too(hire: Hire, bus: Bus):
    crew = hire()
    await died(crew, "c", await crew.ask("c", model="gpt", headers={HEADER_DEADLINE: "1"}))
    await crew.worker.start()
    error = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert (error["code"], error["cost_usd_micros"], paid.cost_usd_micros) == ("timeout", WORST, WORST)
    assert not crew.book.state.open


@pytest.mark.parametrize("code", ["provider_rejected", "provider_malformed"])
async def test_a_second_asking_that_fails_for_nothing_leaves_the_first_one_to_pay(hire: Hire, bus: Bus, code):
    crew = hire()
    crew.gate.failing["gpt"] = code
    await died(crew, "c", await crew.ask("c", model="gpt"))
    await crew.worker.start()
    error = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert (error["code"], error["cost_usd_micros"], paid.cost_usd_micros) == (code, WORST, WORST)


async def test_an_answer_that_is_judged_meanwhile_costs_the_same_everywhere(hire: Hire, bus: Bus):
    crew = hire()
    params = {"response_schema": {"type": "object"}}
    await died(crew, "c", await crew.ask("c", model="gpt", params=params))
    await crew.worker.start()
    error = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert (error["code"], error["cost_usd_micros"]) == ("output_invalid", OWN + WORST)
    assert paid.cost_usd_micros == OWN + WORST
    await crew.judge.close()


async def test_an_answer_of_the_cache_is_free_but_not_what_was_asked_before(hire: Hire, bus: Bus):
    first, second = hire(), hire()
    await died(first, "a", await first.ask("a", model="gpt", params={"cache": True}))
    await first.worker.start()
    await outcome(first, "a")
    await first.worker.drain(1.0)
    await second.book.load()
    await died(second, "c", await second.ask("c", model="gpt", params={"cache": True}))
    await second.worker.start()
    answer = await outcome(second, "c")
    assert (answer["cached"], answer["cost_usd_micros"]) == (True, WORST)
    assert [paid.cost_usd_micros for paid in await payments(bus)] == [OWN + WORST, WORST]
    await second.ask("d", model="gpt", params={"cache": True})
    answer = await outcome(second, "d")
    assert (answer["cached"], answer["cost_usd_micros"], answer.get("abandoned_tokens")) == (True, 0, None)


async def test_what_nobody_takes_up_is_paid_and_is_the_outcome_when_the_request_comes_after_all(hire: Hire, bus: Bus):
    crew = hire()
    await died(crew, "c", await crew.ask("c", model="gpt"))
    await given_up(crew, bus)
    (paid,) = await payments(bus)
    assert (paid.cost_usd_micros, paid.tokens, paid.estimated) == (WORST, 900, True)
    await crew.worker.start()
    error = await outcome(crew, "c")
    assert (error["code"], error["cost_usd_micros"], crew.gate.calls) == ("provider_error", WORST, [])
    assert len(await payments(bus)) == 1
    assert not crew.book.state.open


async def test_a_call_that_may_be_billed_unheard_is_in_the_log_before_it_begins_without_limits_too(hire: Hire):
    crew = hire(limits=LIFTED)
    crew.gate.open.clear()
    await crew.worker.start()
    await crew.ask("c", model="gpt")
    await crew.ask("m", model="mock")
    await eventually(lambda: len(crew.gate.calls) == 2)
    assert [(corr_id, left.billed_by) for corr_id, left in crew.book.state.open.items()] == [("c", "openai")]
    crew.gate.open.set()
    await outcome(crew, "c")
    assert not crew.book.state.open


async def test_who_stops_before_it_asked_leaves_nothing_behind_that_somebody_would_pay_for(hire: Hire, bus: Bus):
    crew = hire(in_flight_max=1, own={"concurrent": 9})
    crew.gate.open.clear()
    await crew.worker.start()
    await crew.ask("asked", model="gpt")
    await eventually(lambda: crew.gate.calls == ["asked"])
    await crew.ask("waits", model="gpt")
    await eventually(lambda: "waits" in crew.book.state.open)
    await crew.worker.drain(0.1)
    assert set(crew.book.state.open) == {"asked"}


async def test_who_stops_in_the_moment_it_took_over_ends_nothing_that_another_one_goes_on_with(hire: Hire, bus: Bus):
    stopping = StopsWhenTakenOver()
    crew = hire(observer=stopping)
    stopping.worker = crew.worker
    await died(crew, "c", await crew.ask("c", model="gpt"))
    await crew.worker.start()
    answer = await outcome(crew, "c")
    (paid,) = await payments(bus)
    assert answer["cost_usd_micros"] == paid.cost_usd_micros == OWN + WORST


async def test_what_was_heard_and_could_not_be_kept_for_long_is_paid_beside_what_is_asked_then(
    hire: Hire, bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.0)
    monkeypatch.setattr(recorder, "AGAIN_S", 0.01)
    crew = hire()
    await crew.worker.start()
    await crew.ask("before", model="gpt")
    await outcome(crew, "before")
    stream = (await bus.api(f"STREAM.INFO.{LLM_RESPONSES}"))["config"]
    await bus.api(f"STREAM.UPDATE.{LLM_RESPONSES}", {**stream, "max_msgs": 1})  # not a word more
    await crew.ask("c", model="gpt")
    await eventually(lambda: "c" in crew.gate.calls and crew.worker.flights.of("c") is None)
    (worst,) = (left.usd_micros or 0 for left in crew.book.state.open.values())
    await bus.api(f"STREAM.UPDATE.{LLM_RESPONSES}", stream)
    answer = await outcome(crew, "c")
    (_, paid) = await payments(bus)
    assert crew.gate.calls == ["before", "c", "c"]
    assert answer["cost_usd_micros"] == paid.cost_usd_micros == OWN + worst
    assert answer["abandoned_usd_micros"] == worst
    assert not crew.book.state.held
