"""Costs are whole micro-dollars, and unknown is never zero."""

import pytest

from contracts.llm import LlmInput, LlmParams, LlmRequest
from services.llm_worker.config import ModelConfig
from services.llm_worker.models import Resolved
from services.llm_worker.prices import Prices, prompt_tokens
from services.llm_worker.providers import mock
from services.llm_worker.providers.protocol import Call, TokensUsed
from tests.unit.llm_worker.support import pieces, usage_of


async def cost(used: TokensUsed, **config) -> int | None:
    return await Prices().cost_micros(Resolved("m", "m", ModelConfig(**config)), used)


TEN_TWENTY = {"price_in_usd_per_mtok": 10, "price_out_usd_per_mtok": 20}


@pytest.mark.parametrize(
    ("used", "config", "micros"),
    [
        (TokensUsed(10, 10), {"provider": "embedded"}, 0),
        (TokensUsed(10, 10, 7), {"provider": "mock"}, 7),
        (TokensUsed(12, 20), {"provider": "mock", **TEN_TWENTY}, 520),
        (TokensUsed(12, 20), {"provider": "embedded", **TEN_TWENTY}, 520),
        (TokensUsed(10, 10), {"provider": "cli"}, None),
        (TokensUsed(1000, 1000), {"provider": "anthropic", "model": "claude-sonnet-4-5"}, 18_000),
        (TokensUsed(1000, 1000), {"provider": "openai", "model": "gpt-4o"}, 12_500),
        (TokensUsed(1000, 0), {"provider": "openai", "model": "gemini-1.5-flash"}, 75),
        (TokensUsed(10, 10), {"provider": "openai", "model": "nobody-knows-it"}, None),
        # A fraction of a micro-dollar is rounded up: the sum never says less than was paid.
        (
            TokensUsed(1, 1),
            {"provider": "openai", "model": "x", "price_in_usd_per_mtok": 0.1, "price_out_usd_per_mtok": 0.2},
            1,
        ),
        (
            TokensUsed(3, 2),
            {"provider": "openai", "model": "gpt-4o", "price_in_usd_per_mtok": 1.0, "price_out_usd_per_mtok": 2.0},
            7,
        ),
    ],
)
async def test_what_a_call_costs(used, config, micros):
    assert await cost(used, **config) == micros


CACHED = TokensUsed(1_000, 10, cache_read=500, cache_written=100)


@pytest.mark.parametrize(
    ("config", "micros"),
    [
        # 400 at 3 $, 500 at 0.30 $, 100 at 3.75 $, and 10 at 15 $ a million.
        ({"provider": "anthropic", "model": "claude-sonnet-4-5"}, 1_875),
        ({"provider": "anthropic", "model": "m", "price_in_usd_per_mtok": 3, "price_out_usd_per_mtok": 15}, 3_150),
    ],
)
async def test_cached_input_has_its_price_and_is_never_free(config, micros):
    assert await cost(CACHED, **config) == micros


def asked(text: str = "Say hi", **params) -> LlmRequest:
    return LlmRequest(LlmInput([{"role": "user", "content": text}]), params=LlmParams(**params))


@pytest.mark.parametrize(
    ("config", "likely", "most"),
    [
        ({"provider": "embedded"}, 0, 0),
        ({"provider": "cli"}, None, None),
        ({"provider": "openai", "model": "nobody-knows-it"}, None, None),
        ({"provider": "openai", "model": "x", "price_in_usd_per_mtok": 1, "price_out_usd_per_mtok": 2}, 210, 316),
        ({"provider": "openai", "model": "gpt-4o"}, 1_025, 1_290),
    ],
)
async def test_a_quote_is_the_worst_case(config, likely, most):
    resolved = Resolved("m", "m", ModelConfig(**config))
    quote = await Prices().quote(asked(max_tokens=100), resolved)
    assert (quote.usd_micros, quote.usd_micros_max) == (likely, most)
    assert quote.completion_tokens_max == 100


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"provider": "embedded"}, (0.0, 0.0)),
        ({"provider": "anthropic", "model": "claude-sonnet-4-5"}, (3.0, 15.0)),
        ({"provider": "openai", "model": "nobody-knows"}, (None, None)),
        (
            {
                "provider": "openai",
                "model": "m",
                "price_in_usd_per_mtok": 0.1,
                "price_out_usd_per_mtok": 2,
            },
            (0.1, 2.0),
        ),
        ({"provider": "nats", **TEN_TWENTY}, (10, 20)),
        ({"provider": "nats"}, (None, None)),
        ({"provider": "mock"}, (0.0, 0.0)),
        ({"provider": "mock", **TEN_TWENTY}, (10, 20)),
    ],
)
async def test_prices_are_shown_as_people_know_them(config, shown):
    assert await Prices().per_mtok(Resolved("m", "m", ModelConfig(**config))) == shown


@pytest.mark.parametrize(
    "text", ["x", "Grüße, 世界! " * 50, "\U0001f980" * 100, "def f(): return 1\n" * 100, '\x00"\\' * 50]
)
def test_no_prompt_has_more_tokens_than_the_worst_case(text):
    """A token of a byte-level vocabulary has at least one byte."""
    likely, most = prompt_tokens(asked(text))
    assert likely <= most
    assert len(text.encode()) + 10 <= most


def test_tools_schemas_and_pictures_count_too():
    plain = prompt_tokens(asked())[1]
    assert prompt_tokens(asked(tools=[{"name": "search"}]))[1] > plain + 500
    assert prompt_tokens(asked(response_schema={"type": "object"}))[1] > plain
    picture = [{"type": "text", "text": "Say hi"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}}]
    assert prompt_tokens(LlmRequest(LlmInput([{"role": "user", "content": picture}])))[1] > plain + 1_000


@pytest.mark.parametrize(
    ("commands", "micros"), [("price=0.01/call", 10_000), ("price=1/mtok", 110), ("price=0.01/call,tokens=3", 10_000)]
)
async def test_the_mock_is_quoted_by_its_commands(commands, micros):
    resolved = Resolved("m", f"mock:{commands}", ModelConfig(provider="mock"))
    assert (await Prices().quote(asked(max_tokens=100), resolved)).usd_micros_max == micros


async def test_a_mock_with_a_price_of_the_table_is_quoted_and_paid_by_it_unless_the_request_names_another():
    dear = Resolved("dear", "dear", ModelConfig("mock", price_in_usd_per_mtok=10, price_out_usd_per_mtok=20))
    request = asked(max_tokens=100)
    prompt = mock.prompt_tokens(request)
    assert (await Prices().quote(request, dear)).usd_micros_max == 10 * prompt + 20 * 100
    used = usage_of(await pieces(mock.MockProvider(), Call(request, dear, 100)))
    assert await Prices().cost_micros(dear, used) == 10 * used.prompt_tokens + 20 * used.completion_tokens
    for commands, micros in (({"price": "0.01"}, 10_000), ({"price": 0}, 0)):
        own = asked(max_tokens=100, mock=commands)
        assert (await Prices().quote(own, dear)).usd_micros_max == micros
        used = usage_of(await pieces(mock.MockProvider(), Call(own, dear, 100)))
        assert await Prices().cost_micros(dear, used, commands) == micros


async def test_a_model_answers_no_longer_than_it_may():
    resolved = Resolved("m", "m", ModelConfig(provider="embedded", max_output_tokens=50))
    assert (await Prices().quote(asked(max_tokens=100), resolved)).completion_tokens_max == 50
