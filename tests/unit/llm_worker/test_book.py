"""This worker's copy of the ledger: what breaks one wish, or comes too late, is nobody else's trouble."""

from collections.abc import AsyncIterator

import pytest

from contracts.errors import Rejected
from contracts.ledger import LlmReserved
from services.llm_worker.ledger.decider import Reserve
from services.llm_worker.ledger.limits import Limits
from services.runtime.bus import Bus
from tests.unit.llm_worker.crew import Crew

ENORMOUS = 10**1000
"""More than any number for people can show."""


@pytest.fixture
async def crew(bus: Bus) -> AsyncIterator[Crew]:
    crew = Crew(bus)
    yield crew
    crew.writing.cancel()


def reserve(corr_id: str, usd_micros: int) -> Reserve:
    return Reserve(corr_id, "w1", 1, "mock", 10, usd_micros, 1_000, Limits(usd_micros=1_000_000))


async def test_a_wish_that_breaks_the_ledger_fails_alone(crew):
    broken, good = crew.book.ask(reserve("broken", ENORMOUS)), crew.book.ask(reserve("good", 1))
    with pytest.raises(Rejected, match="internal"):
        await broken
    (reserved,) = await good
    assert isinstance(reserved, LlmReserved)
    assert not crew.writing.done()
