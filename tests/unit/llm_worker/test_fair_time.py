"""A deadline that no provider could meet says nothing of a model: whoever is in a hurry closes it for nobody else."""

import asyncio
from typing import Any

import pytest

from contracts.limits import LLM_TIMEOUT_DEFAULT_MS
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.breaker.breakers import PATTERN
from services.llm_worker.breaker.fair_time import fair_timeout_ms
from services.llm_worker.config import Config, ModelConfig
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import LIFTED, Crew

HURRY_MS, FAIR_MS = 20, 300
RUN = {"Htdag-Answer-To": "htdag.v1.cmd.executor.run.r.answer"}
"""A run tries again by itself: then one request is one call."""


async def crew_of(bus: Bus, **config: Any) -> Crew:
    models = {"m": ModelConfig(provider="mock", breaker_fair_timeout_ms=FAIR_MS)}
    crew = Crew(bus, Config(limits=LIFTED, models=models, **config))
    await crew.breakers.start()
    await crew.worker.start()
    return crew


async def code_of(crew: Crew, corr_id: str, timeout_ms: int = 5_000) -> str:
    """How one call ended, `ok` when it was answered."""
    await crew.ask(corr_id, model="m", headers=RUN, params={"timeout_ms": timeout_ms})
    answer = await eventually(lambda: crew.answer(corr_id), timeout_s=10)
    return str(answer.get("error", {}).get("code", "ok"))


async def hurry(crew: Crew, number: int = 6) -> None:
    codes = await asyncio.gather(*(code_of(crew, f"hurry-{one}", HURRY_MS) for one in range(number)))
    assert set(codes) == {"timeout"}


async def test_deadlines_that_nobody_could_meet_are_not_counted(bus):
    crew = await crew_of(bus)
    await hurry(crew)
    assert await bus.subjects(EVENTS_LLM_WORKER, PATTERN) == {}
    crew.gate.open.set()
    assert await code_of(crew, "other") == "ok"


async def test_a_model_that_had_a_fair_time_and_did_not_answer_is_left_alone(bus):
    crew = await crew_of(bus)
    for number in range(5):
        assert await code_of(crew, f"slow-{number}", FAIR_MS) == "timeout"
        await asyncio.gather(code_of(crew, f"between-{number}", HURRY_MS))  # says nothing either way
    assert await code_of(crew, "other") == "circuit_open"


async def test_what_the_provider_itself_calls_a_timeout_counts_however_short_the_deadline(bus):
    crew = await crew_of(bus)
    crew.gate.failing["m"] = "timeout"
    for number in range(5):
        assert await code_of(crew, f"told-{number}", FAIR_MS - 1) == "timeout"
    assert await code_of(crew, "other") == "circuit_open"


async def test_a_probe_in_a_hurry_lets_the_next_one_try(bus):
    crew = await crew_of(bus, breaker_open_s=0.5)
    crew.gate.failing["m"] = "provider_error"
    for number in range(5):
        await code_of(crew, f"ill-{number}")
    assert crew.breakers.state("m") == "open"
    del crew.gate.failing["m"]
    await eventually(lambda: crew.breakers.state("m") == "half_open")
    assert await code_of(crew, "hurried-probe", HURRY_MS) == "timeout"
    # Neither closed, as by an answer, nor open for another pause, as by a failure.
    await eventually(lambda: crew.breakers._of("m").breaker.probe == "")
    assert crew.breakers.state("m") == "half_open"
    crew.gate.open.set()
    assert await code_of(crew, "probe") == "ok"
    assert crew.breakers.state("m") == "closed"


@pytest.mark.parametrize(
    ("model", "fair_ms"),
    [
        (ModelConfig(provider="mock"), 50),
        (ModelConfig(provider="embedded"), 15_000),
        (ModelConfig(provider="openai"), 700),
        (ModelConfig(provider="embedded", breaker_fair_timeout_ms=2_000), 2_000),
    ],
)
def test_what_is_fair_is_said_of_a_model_or_of_its_provider_or_of_all(model, fair_ms):
    assert fair_timeout_ms(Config(breaker_fair_timeout_ms=700), model) == fair_ms


def test_a_call_that_says_no_deadline_counts_by_default():
    for provider in ("mock", "embedded", "openai", "anthropic", "cli", "nats"):
        assert fair_timeout_ms(Config(), ModelConfig(provider=provider)) <= LLM_TIMEOUT_DEFAULT_MS
