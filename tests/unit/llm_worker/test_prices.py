"""Costs are whole micro-dollars, and unknown is never zero."""

import pytest

from services.llm_worker.config import ModelConfig
from services.llm_worker.models import Resolved
from services.llm_worker.prices import Prices
from services.llm_worker.providers.protocol import TokensUsed


async def cost(used: TokensUsed, **config) -> int | None:
    return await Prices().cost_micros(Resolved("m", "m", ModelConfig(**config)), used)


@pytest.mark.parametrize(
    ("used", "config", "micros"),
    [
        (TokensUsed(10, 10), {"provider": "embedded"}, 0),
        (TokensUsed(10, 10, 7), {"provider": "mock"}, 7),
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
