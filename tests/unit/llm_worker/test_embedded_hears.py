"""The embedded model bears those who give up: no long prompt leaves it deaf, no hurry freezes it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.llm_worker.config import Config
from services.llm_worker.providers.embedded import BATCH_TOKENS, EmbeddedProvider
from tests.unit.llm_worker.support import call, pieces

PATIENCE_S = 1.0
"""So soon whoever sent the long prompt gives up."""
BATCHES_MAX = 4
"""The rest of the batch that is being read, the prompt of whoever comes next, and some noise of the machine."""


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedProvider]:
    provider = EmbeddedProvider(Config())
    yield provider
    await provider.close()


async def seconds_of(provider: EmbeddedProvider, text: str) -> float:
    began_s = asyncio.get_running_loop().time()
    assert await pieces(provider, call("smollm2", text, max_tokens=2))
    return asyncio.get_running_loop().time() - began_s


@pytest.mark.timeout(120)
async def test_whoever_comes_after_a_long_prompt_that_was_given_up_waits_for_one_batch_at_most(embedded):
    await embedded.load()
    one_batch_s = await seconds_of(embedded, "one " * BATCH_TOKENS)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await pieces(embedded, call("smollm2", "word " * 2_600))
    assert await seconds_of(embedded, "List three colours") < BATCHES_MAX * one_batch_s


@pytest.mark.timeout(120)
async def test_whoever_gives_up_while_it_is_loaded_does_not_harm_it(embedded):
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await pieces(embedded, call("smollm2"))
    loading = embedded._loading
    assert await pieces(embedded, call("smollm2", max_tokens=2))
    assert embedded._loading is loading  # it was begun once
