"""A call that failed in a way that may pass is made again, by us alone, and not too often."""

import asyncio

import pytest
import stamina

from contracts.errors import Rejected
from services.llm_worker.config import Config
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.retrying import TRIES, asked_again
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew

LATE_S = float("inf")


@pytest.fixture(autouse=True)
def at_once():
    """The pauses are stamina's; here the number of tries counts."""
    with stamina.set_testing(True, attempts=TRIES):
        yield


class Tries:
    """Fails with these codes, one after the other, then answers."""

    def __init__(self, *codes: str) -> None:
        self.codes, self.made = list(codes), 0

    async def __call__(self) -> str:
        self.made += 1
        if self.codes:
            raise Rejected(self.codes.pop(0))
        return "answer"


async def test_the_failure_that_is_known_counts_as_the_first_try():
    tries = Tries("provider_error")
    assert await asked_again(Rejected("provider_overloaded"), lambda _: True, tries, LATE_S) == "answer"
    assert tries.made == 2
    tries = Tries("provider_error", "provider_unreachable", "provider_error")
    with pytest.raises(Rejected, match="provider_unreachable"):
        await asked_again(Rejected("provider_overloaded"), lambda _: True, tries, LATE_S)
    assert tries.made == 2


async def test_what_cannot_pass_is_not_tried_again():
    tries = Tries("provider_auth")
    with pytest.raises(Rejected, match="provider_auth"):
        await asked_again(Rejected("provider_error"), lambda error: error.code != "provider_auth", tries, LATE_S)
    assert tries.made == 1


@pytest.mark.parametrize(("told_s", "made"), [(3, 1), (86_400, 0)])
async def test_who_says_when_to_come_again_is_asked_then_or_not_at_all(told_s, made):
    slept: list[float] = []
    tries = Tries()
    with stamina.set_testing(False):
        stamina.instrumentation.set_on_retry_hooks([lambda details: slept.append(details.wait_for)])
        try:
            asking = asked_again(Rejected("provider_overloaded", retry_after=told_s), lambda _: True, tries, soon_s(60))
            with pytest.raises(TimeoutError if made else Rejected):
                async with asyncio.timeout(0.2):
                    await asking
        finally:
            stamina.instrumentation.set_on_retry_hooks(None)
    assert (slept, tries.made) == ([told_s] * made, 0)


def soon_s(within_s: float) -> float:
    return asyncio.get_running_loop().time() + within_s


async def test_a_call_is_reserved_once_however_often_its_provider_is_asked(bus: Bus):
    crew = Crew(bus, Config(limits=LimitsConfig(usd_per_day=1, requests_per_minute=1, concurrent=1)))
    await crew.worker.start()
    crew.gate.failing["mock"] = "provider_overloaded"
    await crew.ask("c")
    answer = await eventually(lambda: crew.answer("c"))
    assert answer["error"]["code"] == "provider_overloaded"
    assert crew.gate.calls == ["c"] * TRIES
    assert crew.metrics.value("htdag_llm_retries_total", provider="mock", model="mock") == TRIES - 1
    await eventually(lambda: not crew.cashier.book.state.open)
    assert not crew.cashier.book.state.spent
    crew.writing.cancel()
