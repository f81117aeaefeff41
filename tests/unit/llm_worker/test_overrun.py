"""A provider that delivers, or reports, more than was reserved: it is stopped, and no limit is exceeded by its word."""

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Rejected
from contracts.ledger import LlmPaid, LlmReserved
from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.models import Resolved
from services.llm_worker.providers.anthropic import AnthropicProvider
from services.llm_worker.providers.bounds import BYTES_AROUND, BYTES_PER_TOKEN, of_output
from services.llm_worker.providers.cli import CliProvider
from services.llm_worker.providers.openai import OpenAiProvider
from services.llm_worker.providers.protocol import Call, Delta, Finish, Piece, TokensUsed
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew
from tests.unit.llm_worker.http_provider import answering
from tests.unit.llm_worker.support import call, error_of, with_config

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
DOLLAR = 1_000_000
MODEL = ModelConfig(provider="openai", model="m", price_in_usd_per_mtok=1.0, price_out_usd_per_mtok=1.0)
LIMITED = LimitsConfig(usd_per_day=1.0, requests_per_minute=0, concurrent=0)


class Stranger:
    """A provider that says what it likes."""

    def __init__(self, used: Any = (1, 1), chunks: int = 1, chunk: str = "word ") -> None:
        self.used, self.chunks, self.chunk = used, chunks, chunk
        self.calls = self.said = 0

    def missing(self, resolved: Resolved) -> str:
        return ""

    async def close(self) -> None:
        return None

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        self.calls += 1
        for _ in range(self.chunks):
            self.said += len(self.chunk)
            yield Delta(self.chunk)
        yield TokensUsed(*self.used)
        yield Finish("stop")


async def crew_with(bus: Bus, stranger: Stranger) -> Crew:
    crew = Crew(bus, Config(limits=LIMITED, models={"m": MODEL}))
    crew.providers.use("openai", stranger)
    await crew.breakers.start()
    await crew.worker.start()
    return crew


async def answered(crew: Crew, corr_id: str) -> dict[str, Any]:
    await crew.ask(corr_id, model="m", params={"max_tokens": 20})
    answer: dict[str, Any] = await eventually(lambda: crew.answer(corr_id))
    await eventually(lambda: corr_id not in crew.book.state.open and not crew.worker.flights.of(corr_id))
    return answer


async def facts(crew: Crew) -> tuple[LlmReserved, LlmPaid]:
    async def both() -> list[Any] | None:
        found: list[Any] = []
        async for record in crew.bus.history("HTDAG_EVT_LLM_WORKER", "htdag.v1.evt.llm-worker.ledger.all", 0):
            found += crew.book._codec.decode(record.data).events
        return found if len(found) == 2 else None

    # The ledger's state is ahead of its log until the commit is acknowledged.
    reserved, paid = await eventually(both)
    return reserved, paid


async def test_a_report_beyond_the_reservation_is_a_dispute_and_not_spent(bus):
    crew = await crew_with(bus, Stranger(used=(9_000_000, 9_000_000)))
    answer = await answered(crew, "c")
    reserved, paid = await facts(crew)
    assert answer["output"] == "word "
    assert paid.cost_usd_micros == answer["cost_usd_micros"] == reserved.usd_micros
    assert paid.prompt_tokens + paid.completion_tokens == answer["usage"]["total_tokens"] == reserved.tokens
    over = 18_000_000 - reserved.tokens
    assert answer["disputed"] == {"tokens": over, "usd_micros": over}
    assert (paid.disputed_tokens, paid.disputed_usd_micros) == (over, over)
    assert "htdag_llm_disputed_usd_micros_total" in crew.metrics.render().decode()
    # And it is left alone until it has proved itself.
    assert crew.breakers.state("m") == "open"
    assert (await answered(crew, "next"))["error"]["code"] == "circuit_open"


async def test_a_token_more_is_not_paid_and_is_no_alarm(bus):
    crew = await crew_with(bus, Stranger(used=(10, 21)))
    answer = await answered(crew, "c")
    assert (answer["usage"]["completion_tokens"], answer["disputed"]["tokens"]) == (20, 1)
    assert crew.breakers.state("m") == "closed"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_flood_is_stopped_and_costs_what_was_reserved(bus, stream):
    stranger = Stranger(chunks=1_000_000, chunk="x" * 100)
    crew = await crew_with(bus, stranger)
    await crew.ask("c", model="m", params={"max_tokens": 20, "stream": stream})
    answer = await eventually(lambda: crew.answer("c"))
    await eventually(lambda: "c" not in crew.book.state.open)
    assert answer["error"]["code"] == "provider_overran"
    assert stranger.calls == 1
    assert stranger.said <= BYTES_AROUND + 20 * BYTES_PER_TOKEN + 100
    reserved, paid = await facts(crew)
    assert paid.cost_usd_micros == reserved.usd_micros
    assert crew.breakers.state("m") == "open"


@pytest.mark.parametrize("used", [(-5, -5), (1.5, 2), ("9", 1), (True, 1), (1 << 60, 1), (None, None)])
async def test_a_count_that_is_none_is_unknown_and_asked_for_once(bus, used):
    stranger = Stranger(used=used)
    crew = await crew_with(bus, stranger)
    answer = await answered(crew, "c")
    assert (answer["output"], answer["cost_usd_micros"]) == ("word ", None)
    reserved, paid = await facts(crew)
    assert (paid.cost_usd_micros, paid.charged_usd_micros) == (None, reserved.usd_micros)
    assert stranger.calls == 1
    assert await eventually(lambda: _settled(crew))


async def _settled(crew: Crew) -> bool:
    return await crew.unsettled() == 0


def test_more_bytes_than_tokens_can_have_are_too_many():
    allowance = of_output(call(max_tokens=2))
    allowance.take(BYTES_AROUND + 2 * BYTES_PER_TOKEN)
    with pytest.raises(Rejected, match="max_tokens"):
        allowance.take(1)


@pytest.mark.parametrize("kind", [OpenAiProvider, AnthropicProvider])
@pytest.mark.parametrize("status", [200, 500])
async def test_a_line_without_an_end_is_not_read_to_its_end(kind, status):
    async with asyncio.timeout(20), answering(
        status, "data: " + "x" * 4_000_000, kind="text/event-stream", hang=True
    ) as url:  # fmt: skip
        provider = kind(lambda _: "key")
        wanted = with_config(call(max_tokens=20), provider="openai", base_url=url)
        assert (await error_of(provider, wanted)).code == "provider_overran"
        await provider.close()


FLOOD = """
    import json, sys
    sys.stdin.read()
    while True: print(json.dumps({"type": "assistant", "message": "x" * 10_000}))
"""


async def test_a_program_that_floods_is_stopped(tmp_path: Path):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(FLOOD))
    provider = CliProvider(lambda _: "", {"PATH": ""})
    wanted = with_config(call(max_tokens=20), provider="cli", argv=(sys.executable, str(path)))
    async with asyncio.timeout(20):
        error = await error_of(provider, wanted)
    assert (error.code, error.detail["provider"]) == ("provider_overran", "cli")
    assert json.dumps(error.detail)
