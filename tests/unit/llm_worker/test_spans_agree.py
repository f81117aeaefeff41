"""Spans add up to the ledger: each paid call has its tokens on its span, however it ended, and guesses are marked."""

from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from contracts.errors import Rejected
from services.llm_worker import genai
from services.llm_worker.config import Config
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.models import Resolved
from services.llm_worker.providers.protocol import Call, Delta, Finish, Piece, TokensUsed
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew

MODEL = "mock:price=0.05/call"
WORDS = [Delta("some words"), TokensUsed(2, 3)]
ENDS = ("ok", "counted", "guessed", "timeout", "nothing")


class Stranger:
    """A provider that ends each call as its id says."""

    def missing(self, _resolved: Resolved) -> str:
        return ""

    async def close(self) -> None:
        return None

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        end = call.request.corr_id
        if end == "nothing":
            raise Rejected("provider_rejected")
        for piece in WORDS[: 1 if end == "guessed" else 2]:
            yield piece
        if end == "timeout":
            raise TimeoutError
        if end != "ok":
            raise Rejected("provider_malformed")
        yield Finish("stop")


@pytest.fixture
async def crew(bus: Bus) -> AsyncIterator[Crew]:
    crew = Crew(bus, Config(limits=LimitsConfig(usd_per_day=1.0, requests_per_minute=0, concurrent=0)))
    crew.providers.put("mock", Stranger())
    await crew.worker.start()
    yield crew
    crew.writing.cancel()


async def test_the_tokens_of_every_paid_call_stand_on_its_span(crew: Crew, spans):
    for end in ENDS:
        await crew.ask(end, model=MODEL)
        await eventually(lambda end=end: crew.answer(end))
    await eventually(lambda: _settled(crew))
    told = {
        span.attributes["htdag.corr_id"]: (
            span.attributes.get("gen_ai.usage.input_tokens"),
            span.attributes.get("gen_ai.usage.output_tokens"),
            span.attributes.get(genai.ESTIMATED),
        )
        for span in spans()
        if span.name.startswith("chat ")
    }
    assert (told["ok"], told["counted"], told["timeout"]) == ((2, 3, None),) * 3
    assert told["guessed"][2] is True
    assert told["nothing"] == (None, None, None)
    (spent,) = (spent for account, spent in crew.book.state.spent.items() if account.startswith("day/"))
    assert (spent.calls, spent.tokens) == (4, sum((asked or 0) + (said or 0) for asked, said, _ in told.values()))


async def _settled(crew: Crew) -> bool:
    return await crew.unsettled() == 0
