"""Projections come up to now before they are used, and their lag is measured."""

import structlog

from contracts.commit import HEADER_SUMMARY, HEADER_TYPES, Commit
from contracts.ledger import LEDGER_ID, LlmPaid
from contracts.strategy import StrategyBody, StrategyPut
from contracts.streams import EVENTS_EXECUTOR, EVENTS_LLM_WORKER, EVENTS_PLANNER
from contracts.subjects import events as event_subject
from services.planner.epic_list import EpicList
from services.planner.epic_spending import LEDGER_CODEC, EpicSpending, EpicSpent
from services.planner.projections import Projections
from services.planner.strategy_book import STRATEGY_CODEC, StrategyBook
from services.planner.unreadable import Unreadable
from services.runtime.bus import Bus
from services.runtime.metrics import Metrics
from tests.support.eventually import eventually


async def put(bus: Bus, version: int) -> None:
    event = StrategyPut(name="s", version=version, body=StrategyBody(scripts={}), digest=str(version))
    data = STRATEGY_CODEC.encode(Commit(at="", by="", cause="", corr="", events=[event]))
    await bus.store(event_subject("planner", "strategy", "s"), data, stream=EVENTS_PLANNER, msg_id=f"put{version}")


def lags(metrics: Metrics) -> dict[str, float]:
    lines = metrics.render().decode().splitlines()
    shown = [line for line in lines if line.startswith("htdag_projection_lag_messages{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in shown}


async def test_what_was_stored_before_the_start_is_known_after_it_and_what_comes_later_soon(bus: Bus):
    await put(bus, 1)
    book, epic_list, spending, metrics = StrategyBook(), EpicList(), EpicSpending(), Metrics()
    projections = Projections(bus, metrics, Unreadable(structlog.get_logger()))
    await projections.start(book, epic_list, spending)
    assert book.get("s").version == 1
    await put(bus, 2)
    await eventually(lambda: book.get("s").version == 2)
    headers = {HEADER_SUMMARY: '{"epic_id":"e","total":3}'}
    await bus.store(event_subject("executor", "run", "r1"), b"{}", stream=EVENTS_EXECUTOR, msg_id="r1", headers=headers)
    await eventually(lambda: epic_list.progress("e").total == 3)
    paid = LlmPaid("c", 1, "w", "2026-11-28", "m", "mock", 3, 4, 50, 1, epic_id="e")
    commit = LEDGER_CODEC.encode(Commit(at="", by="", cause="", corr="", events=[paid]))
    ledger, types = event_subject("llm-worker", "ledger", LEDGER_ID), {HEADER_TYPES: "llm.paid.v1"}
    await bus.store(ledger, commit, stream=EVENTS_LLM_WORKER, msg_id="p", headers=types)
    await eventually(lambda: spending.of("e") == EpicSpent(7, 50))
    assert projections.not_ready() is None
    await projections.measure()
    assert lags(metrics) == {"planner-strategies": 0, "planner-epics": 0, "planner-progress": 0, "planner-spending": 0}


async def test_a_projection_that_stands_still_is_seen(bus: Bus):
    metrics = Metrics()
    projections = Projections(bus, metrics, Unreadable(structlog.get_logger()))
    await projections.start(StrategyBook(), EpicList(), EpicSpending())
    for projection in projections._all:
        await projection.follower.stop()
    await put(bus, 1)
    await put(bus, 2)
    await projections.measure()
    assert lags(metrics)["planner-strategies"] == 2
