"""Breakers over several workers on a real broker: failures add up, one probe goes out, the others wait for it."""

import asyncio

import pytest

from contracts.breaker import BreakerClosed
from contracts.errors import Rejected
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.breaker import breakers as breakers_module
from services.llm_worker.breaker.breakers import CODEC, Pass
from services.llm_worker.config import Config, ModelConfig
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew

QUICK = Config(breaker_failures=5, breaker_open_s=0.4)


async def pair(bus: Bus, config: Config) -> tuple[Crew, Crew]:
    both = Crew(bus, config, "w1"), Crew(bus, config, "w2")
    for crew in both:
        await crew.breakers.start()
    return both


async def fail(crew: Crew, model: str = "m", code: str = "provider_error") -> None:
    leave = await crew.breakers.admit(model, "c", 1_000)
    await crew.breakers.failed(leave, code)


async def test_failures_at_different_workers_add_up_and_open_for_all(bus):
    one, two = await pair(bus, Config())
    for crew in (one, two, one, two):
        await fail(crew)
        await eventually(lambda: one.breakers._of("m").seq == two.breakers._of("m").seq)
    assert one.breakers.state("m") == "closed"
    await fail(one)
    await eventually(lambda: two.breakers.state("m") == "open")
    for crew in (one, two):
        with pytest.raises(Rejected) as refused:
            crew.breakers.check("m")
        assert (refused.value.code, refused.value.detail["retry_after"]) == ("circuit_open", 60)
        assert crew.metrics.value("htdag_llm_breaker_state", model="m") == 2
        crew.breakers.check("other")


async def test_many_failures_at_once_are_each_counted_once(bus):
    one, two = await pair(bus, Config(breaker_failures=20))
    await asyncio.gather(*(fail(crew) for crew in [one, two] * 9))
    await eventually(lambda: one.breakers._of("m").breaker.failures == 18)
    await eventually(lambda: two.breakers._of("m").breaker.failures == 18)


@pytest.mark.parametrize("code", ["provider_auth", "provider_rejected", "provider_malformed", "cancelled"])
async def test_what_is_not_the_models_fault_is_not_counted(bus, code):
    one, _ = await pair(bus, Config())
    for _ in range(6):
        await fail(one, code=code)
    assert one.breakers.state("m") == "closed"
    assert await bus.subjects(EVENTS_LLM_WORKER, ">") == {}


async def test_one_probe_over_all_workers_and_it_closes_for_all(bus):
    one, two = await pair(bus, QUICK)
    for _ in range(5):
        await fail(one)
    await eventually(lambda: one.breakers.state("m") == two.breakers.state("m") == "half_open")

    async def enter(crew: Crew, corr_id: str) -> Pass | None:
        try:
            return await crew.breakers.admit("m", corr_id, 1_000)
        except Rejected:
            return None

    entered = await asyncio.gather(*(enter(crew, f"c{n}") for n, crew in enumerate([one, two] * 10)))
    (probe,) = [leave for leave in entered if leave is not None]
    crew = one if probe.probe.startswith("w1") else two
    await crew.breakers.succeeded(probe)
    await eventually(lambda: one.breakers.state("m") == two.breakers.state("m") == "closed")
    assert (await one.breakers.admit("m", "c", 1_000)).probe == ""


async def test_a_probe_that_fails_opens_again_and_a_new_worker_knows(bus):
    one, _ = await pair(bus, QUICK)
    for _ in range(5):
        await fail(one)
    await eventually(lambda: one.breakers.state("m") == "half_open")
    await fail(one, code="timeout")
    assert one.breakers.state("m") == "open"
    late = Crew(bus, QUICK, "w3")
    await late.breakers.start()
    assert late.breakers.state("m") != "closed"


async def test_what_a_person_has_mended_is_closed_for_all_and_its_log_says_by_whom(bus):
    one, two = await pair(bus, Config())
    for _ in range(5):
        await fail(one)
    await eventually(lambda: two.breakers.state("m") == "open")
    await two.breakers.reset("m", "ann")
    await eventually(lambda: one.breakers.state("m") == "closed")
    one.breakers.check("m")
    newest = await bus.last(EVENTS_LLM_WORKER, one.breakers._subject("m"))
    (closed,) = CODEC.decode(newest.data).events
    assert (type(closed), closed.worker) == (BreakerClosed, "ann")
    # A worker that has not heard of anything yet looks before it believes that all is well.
    for _ in range(5):
        await fail(one)
    late = Crew(bus, Config(), "w3")
    await late.breakers.reset("m", "ann")
    await eventually(lambda: one.breakers.state("m") == "closed")


async def test_made_up_names_are_forgotten_whatever_became_of_them(bus, monkeypatch):
    monkeypatch.setattr(breakers_module, "MODELS_MAX", 3)
    one, two = await pair(bus, Config(breaker_failures=1))
    names = [f"nats/m{number}" for number in range(8)]
    for name in names:
        await fail(one, model=name, code="provider_unreachable")
    assert len(one.breakers._known) <= 3
    await eventually(lambda: len(two.breakers._known) == 3)
    # What was forgotten stands in the log, and counts as soon as it is met again.
    forgotten = next(name for name in names if name not in one.breakers._known)
    assert one.breakers.state(forgotten) == "closed"
    await fail(one, model=forgotten, code="provider_unreachable")
    with pytest.raises(Rejected, match="circuit_open"):
        await fail(one, model=forgotten, code="provider_unreachable")


async def test_an_open_model_is_refused_at_once_and_the_other_is_fine(bus):
    models = {"ill": ModelConfig(provider="mock"), "well": ModelConfig(provider="mock")}
    crew = Crew(bus, Config(models=models))
    crew.gate.always_open.add("well")
    crew.gate.failing["ill"] = "provider_error"
    await crew.breakers.start()
    await crew.worker.start()
    for number in range(5):
        await crew.ask(f"f{number}", model="ill", headers=RUN)
        assert (await answered(crew, f"f{number}"))["error"]["code"] == "provider_error"
    calls = len(crew.gate.calls)
    await crew.ask("six", model="ill", headers=RUN)
    error = (await answered(crew, "six"))["error"]
    assert (error["code"], error["model"]) == ("circuit_open", "ill")
    assert 0 < error["retry_after"] <= 60
    assert len(crew.gate.calls) == calls
    await crew.ask("w", model="well")
    assert (await answered(crew, "w"))["output"] == "done"


async def test_a_chain_of_models_answers_for_one_that_fails_and_says_so(bus):
    models = {
        "ill": ModelConfig(provider="mock", fallback=("nosuch", "worse", "well")),
        "worse": ModelConfig(provider="mock"),
        "well": ModelConfig(provider="mock"),
        "alone": ModelConfig(provider="mock"),
    }
    crew = Crew(bus, Config(models=models))
    crew.gate.always_open.add("well")
    crew.gate.failing.update(ill="provider_error", worse="provider_overloaded", alone="provider_error")
    await crew.breakers.start()
    await crew.worker.start()
    await crew.ask("c", model="ill", headers=RUN)
    answer = await answered(crew, "c")
    assert (answer["model_id"], answer["model_used"], answer["output"]) == ("ill", "well", "done")
    await crew.ask("d", model="alone", headers=RUN)
    assert (await answered(crew, "d"))["error"]["code"] == "provider_error"
    # A request that is at fault itself is nobody else's.
    crew.gate.failing["ill"] = "provider_rejected"
    await crew.ask("e", model="ill", headers=RUN)
    assert (await answered(crew, "e"))["error"]["code"] == "provider_rejected"


RUN = {"Htdag-Answer-To": "htdag.v1.cmd.executor.run.r.answer"}
"""A run tries again by itself: then one request is one call."""


async def answered(crew: Crew, corr_id: str) -> dict:
    return await eventually(lambda: crew.answer(corr_id), timeout_s=10)
