"""How the workers of a pool share what waits: each takes what it can begin soon, and leaves the rest to whoever can."""

import pytest

from services.llm_worker.admission import AHEAD_LEAST, AHEAD_MOST, Admission
from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.models import Resolved
from services.runtime.clock import SystemClock
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import LIFTED, Crew

PLACES = 8
MOCK = Resolved("mock", "mock", ModelConfig(provider="mock"))


async def _settled(crew: Crew) -> bool:
    return await crew.unsettled() == 0


async def test_a_worker_that_comes_later_gets_its_share_of_what_waits_already(bus):
    config = Config(limits=LIFTED, in_flight_max=PLACES)
    first, second = Crew(bus, config, "w1"), Crew(bus, config, "w2")
    for number in range(60):
        await first.ask(f"c{number}")
    await first.worker.start()
    await eventually(lambda: len(first.gate.calls) == PLACES)
    await second.worker.start()
    await eventually(lambda: len(second.gate.calls) == PLACES)
    assert len(first.worker.flights) <= PLACES + AHEAD_LEAST
    first.gate.open.set()
    second.gate.open.set()
    await eventually(lambda: _settled(first), timeout_s=20)
    assert sorted(first.gate.calls + second.gate.calls) == sorted(f"c{number}" for number in range(60))


async def test_calls_that_wait_for_the_slot_of_a_model_are_shared_too(bus):
    config = Config(limits=LIFTED, models={"slow": ModelConfig(provider="mock", slots=1)})
    first, second = Crew(bus, config, "w1"), Crew(bus, config, "w2")
    for number in range(12):
        await first.ask(f"s{number}", model="slow")
    await first.worker.start()
    await eventually(lambda: len(first.gate.calls) == 1)
    await second.worker.start()
    await eventually(lambda: len(second.gate.calls) == 1)
    first.gate.open.set()
    second.gate.open.set()
    await eventually(lambda: _settled(first), timeout_s=30)
    assert len(set(first.gate.calls + second.gate.calls)) == 12


async def test_calls_that_wait_for_a_limit_of_their_model_keep_no_place_from_the_others(bus):
    config = Config(
        limits=LIFTED, in_flight_max=2, models={"dear": ModelConfig(provider="mock", requests_per_minute=1)}
    )
    crew = Crew(bus, config)
    await crew.worker.start()
    for number in range(6):
        await crew.ask(f"d{number}", model="dear", params={"timeout_ms": 60_000})
    await eventually(lambda: crew.book.waiting == 5)
    await crew.ask("q")
    await eventually(lambda: "q" in crew.gate.calls)
    assert crew.book.held_up == 0
    crew.gate.open.set()


async def test_calls_that_wait_for_a_limit_of_all_are_no_reason_for_more_workers(bus):
    crew = Crew(bus, Config(limits=LimitsConfig(usd_per_day=0, requests_per_minute=0, concurrent=1), in_flight_max=2))
    await crew.worker.start()
    for number in range(6):
        await crew.ask(f"c{number}")
    await eventually(lambda: crew.book.held_up == 1)
    crew.gate.open.set()
    await eventually(lambda: _settled(crew), timeout_s=20)
    assert len(crew.gate.calls) == 6


async def test_only_calls_at_a_provider_are_shown_in_flight_and_none_that_waits(bus):
    limits = LimitsConfig(usd_per_day=0, requests_per_minute=0, concurrent=2)
    crew = Crew(bus, Config(limits=limits, models={"slow": ModelConfig(provider="mock", slots=1)}))
    await crew.worker.start()
    for number in range(5):
        await crew.ask(f"c{number}")
    await eventually(lambda: len(crew.gate.calls) == 2 and crew.book.waiting == 3)
    await crew.ask("s0", model="slow")
    await crew.ask("s1", model="slow")
    await eventually(lambda: crew.caller.load.waiting == 1)
    assert crew.metrics.value("htdag_llm_in_flight") == 2
    crew.gate.open.set()
    await eventually(lambda: _settled(crew), timeout_s=20)
    assert crew.metrics.value("htdag_llm_in_flight") == 0


async def test_a_call_that_fails_or_is_cancelled_is_no_longer_in_flight(bus):
    crew = Crew(bus)
    crew.gate.failing["mock:tokens=1"] = "provider_rejected"
    await crew.worker.start()
    await crew.ask("f", model="mock:tokens=1")
    await crew.ask("c")
    await eventually(lambda: crew.gate.calls.count("c") == 1 and crew.metrics.value("htdag_llm_in_flight") == 1)
    assert crew.worker.flights.cancel("c")
    await eventually(lambda: _settled(crew))
    assert crew.metrics.value("htdag_llm_in_flight") == 0


class _Watch(SystemClock):
    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("took_s", "ahead"), [(2.0, AHEAD_LEAST), (0.1, PLACES), (0.0001, AHEAD_MOST)])
def test_what_is_taken_ahead_depends_on_how_long_calls_take(took_s, ahead):
    watch = _Watch()
    admission = Admission(Config(in_flight_max=PLACES), watch)
    assert admission.credit() == PLACES + AHEAD_LEAST
    with admission.at_work(MOCK):
        watch.now_s += took_s
    assert admission.credit() == PLACES + ahead
