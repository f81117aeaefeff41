"""What metrics say of money and of breakers is what the log says: counted by whoever wrote it, shown by everybody."""

import asyncio

import pytest
import structlog

from contracts.ledger import Abandoned, LlmPaid
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.config import Config
from services.llm_worker.ledger.book import SUBJECT, Book
from services.llm_worker.ledger.decider import LEDGER
from services.llm_worker.ledger.opening import CODEC, Observer
from services.llm_worker.ledger.payment import Pay
from services.llm_worker.ledger.state import Spent
from services.runtime.clock import SystemClock
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.metrics import Metrics
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew

DAY = "2026-11-28"


@pytest.mark.parametrize("estimated", [False, True])  # answered, or paid and then cancelled
def test_every_payment_that_is_written_is_counted_with_what_it_cost(estimated):
    metrics = Metrics()
    paid = LlmPaid("c", 0, "w1", DAY, "dear", "openai", 7, 3, 1_500, 1, estimated=estimated)
    Observer(metrics).committed([paid, LlmPaid("d", 0, "w1", DAY, "dear", "openai", 1, 0, None, 2)], 0.0)
    where = {"provider": "openai", "model": "dear"}
    assert metrics.value("htdag_llm_cost_usd_micros_total", **where) == 1_500
    assert metrics.value("htdag_llm_cost_unknown_total", **where) == 1
    assert metrics.value("htdag_llm_tokens_total", type="input", **where) == 8
    assert metrics.value("htdag_llm_tokens_total", type="output", **where) == 3


def test_what_nobody_heard_counts_for_the_model_that_was_asked():
    metrics = Metrics()
    unheard = [Abandoned("openai", "dear", 50, 900)]
    paid = LlmPaid("c", 0, "w1", DAY, "own", "nats", 7, 3, 1_500, 1, abandoned=unheard)
    Observer(metrics).committed([paid], 0.0)
    dear, own = {"provider": "openai", "model": "dear"}, {"provider": "nats", "model": "own"}
    assert metrics.value("htdag_llm_cost_usd_micros_total", **dear) == 900
    assert metrics.value("htdag_llm_cost_usd_micros_total", **own) == 600
    assert metrics.value("htdag_llm_tokens_total", type="abandoned", **dear) == 50
    assert metrics.value("htdag_llm_tokens_total", type="input", **own) == 7


async def test_a_worker_without_calls_shows_what_the_others_have_paid(bus):
    shown: list[int] = []

    def book(changed) -> Book:
        store = JetStreamEventStore(bus, EVENTS_LLM_WORKER)
        log, clock = structlog.get_logger(), SystemClock()
        return Book(store=store, decider=LEDGER, codec=CODEC, clock=clock, log=log, changed=changed)

    def spent() -> int:
        return sum(idle.state.spent.get(account, Spent()).usd_micros for account in idle.state.spent)

    idle = book(lambda: shown.append(spent()))
    busy = book(lambda: None)
    await bus.follow(EVENTS_LLM_WORKER, SUBJECT, idle.hear)
    running = [asyncio.create_task(one.run()) for one in (idle, busy)]
    await busy.ask(Pay("c", "w1", 1, "m", "mock", 1, 1, 42))
    await eventually(lambda: shown and shown[-1] >= 42)
    for task in running:
        task.cancel()


async def test_one_opened_breaker_is_one_transition_over_all_workers(bus):
    crews = [Crew(bus, Config(breaker_failures=2), f"w{number}") for number in range(3)]
    for crew in crews:
        await crew.breakers.start()
    for crew in crews[:2]:
        await crew.breakers.failed(await crew.breakers.admit("m", "c", 1_000), "provider_error")
    await eventually(lambda: all(crew.breakers.state("m") == "open" for crew in crews))
    counted = [crew.metrics.value("htdag_llm_breaker_transitions_total", model="m", to="open") for crew in crews]
    assert sorted(counted) == [0, 0, 1]
