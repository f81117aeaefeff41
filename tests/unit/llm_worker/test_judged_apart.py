"""Judging is our work: it fails no model, holds nothing of a provider, and throws no answer away that is paid."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.judging.judge import CROWD_MAX, SHOWN_CHARS_MAX
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.ledger.state import Spent
from services.llm_worker.providers.mock import MockProvider
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew

BOMB = {"$ref": "#/$defs/n", "$defs": {"n": {"oneOf": [
    {"properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["zz"]},
    {"properties": {"a": {"$ref": "#/$defs/n"}, "b": {}}, "required": ["yy"]},
]}}}  # fmt: skip
"""Each level of an answer doubles the work."""
DEEP = '{"a":' * 30 + "1" + "}" * 30
BOMBS = 16
PRICED = "mock:price=0.01/call"


@pytest.fixture
async def crew(bus: Bus) -> AsyncIterator[Crew]:
    limits = LimitsConfig(usd_per_day=10.0, requests_per_minute=0, concurrent=4)
    models = {"narrow": ModelConfig(provider="mock", slots=1, price_in_usd_per_mtok=0, price_out_usd_per_mtok=0)}
    crew = Crew(bus, Config(limits=limits, models=models))
    crew.providers.put("mock", MockProvider())
    await crew.worker.start()
    yield crew
    await crew.judge.close()


async def bombs(crew: Crew, number: int, model: str = PRICED, **params: Any) -> list[str]:
    ids = [f"bomb-{count}" for count in range(number)]
    told = {"response_schema": BOMB, "mock": {"text": DEEP}, "timeout_ms": 4_000, **params}
    for corr_id in ids:
        await crew.ask(corr_id, model=model, params=told)
    return ids


def paid(crew: Crew) -> Spent:
    """What the ledger has of all calls."""
    (spent,) = [spent for account, spent in crew.book.state.spent.items() if account.startswith("day/")] or [Spent()]
    return spent


async def _settled(crew: Crew) -> bool:
    return await crew.unsettled() == 0


async def answered(crew: Crew, corr_id: str, within_s: float) -> dict[str, Any]:
    return await eventually(lambda: crew.answer(corr_id), timeout_s=within_s)


@pytest.mark.parametrize("model", [PRICED, "narrow"])
async def test_bombs_are_the_trouble_of_those_who_sent_them(crew, model):
    ids = await bombs(crew, BOMBS, model)
    await eventually(lambda: paid(crew).calls > 2)  # they are judged, or wait for it
    began_s = asyncio.get_running_loop().time()
    for number in range(3):
        await crew.ask(f"plain-{number}", model=model)
        assert "output" in await answered(crew, f"plain-{number}", 3)
    shape = {"response_schema": {"type": "object"}, "mock": {"text": '{"a":1}'}}
    await crew.ask("good", model=model, params=shape)
    assert (await answered(crew, "good", 15))["output"] == '{"a":1}'
    assert asyncio.get_running_loop().time() - began_s < 10
    for corr_id in ids:
        error = (await answered(crew, corr_id, 30))["error"]
        assert (error["code"], error["output"]) == ("output_invalid", DEEP)
        assert "judged" in error["message"]
        assert error["cost_usd_micros"] == (10_000 if model == PRICED else 0)
    assert crew.breakers.state(model) in ("", "closed")
    await eventually(lambda: _settled(crew))
    spent = paid(crew)
    assert (spent.calls, spent.usd_micros) == (BOMBS + 4, (BOMBS + 4) * 10_000 if model == PRICED else 0)
    assert not crew.book.state.open


async def test_what_is_paid_is_free_for_others_before_it_is_judged(crew):
    await bombs(crew, 4)
    await eventually(lambda: len(crew.book.state.closed) == 4)
    assert (crew.book.state.live.get("", 0), len(crew.worker.flights.all())) == (0, 4)


async def test_all_of_an_answer_that_is_refused_is_kept(crew):
    text = json.dumps("x" * 3 * SHOWN_CHARS_MAX)
    params = {"response_schema": {"type": "object"}, "mock": {"text": text}, "max_tokens": 10_000}
    await crew.ask("long", model=PRICED, params=params)
    error = (await answered(crew, "long", 10))["error"]
    assert error["output"] == text[:SHOWN_CHARS_MAX]
    assert error["output_ref"]["bytes"] == len(text)


async def test_a_worker_that_stops_does_not_throw_away_what_it_judges(crew):
    await bombs(crew, 1)
    await eventually(lambda: len(crew.book.state.closed) == 1)
    await crew.worker.drain(2.0)
    error = (await answered(crew, "bomb-0", 3))["error"]
    assert (error["code"], error["output"]) == ("output_invalid", DEEP)
    assert "in time" in error["message"]


async def test_where_too_many_are_to_be_judged_no_more_are_begun(crew):
    """They go back to the broker, unpaid; who wants no judge is not concerned."""
    turns, held = crew.judge._quick.turns, []
    for _ in range(2):
        await turns.take("busy")
    for _ in range(CROWD_MAX):
        held.append(asyncio.create_task(turns.take("busy")))
    await eventually(lambda: crew.judge.crowded)
    await bombs(crew, 1)
    await crew.ask("plain", model=PRICED)
    assert "output" in await answered(crew, "plain", 3)
    assert await crew.answer("bomb-0") is None
    assert not any("bomb" in flight.key.corr_id for flight in crew.worker.flights.all())
    for task in held:
        task.cancel()
    turns.release()
    turns.release()
    assert (await answered(crew, "bomb-0", 20))["error"]["code"] == "output_invalid"
