"""What providers say of tokens: all parts of a prompt count, and what is no count is unknown, never zero."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from services.llm_worker.providers.anthropic import AnthropicProvider
from services.llm_worker.providers.bounds import sound
from services.llm_worker.providers.cli import CliProvider
from services.llm_worker.providers.openai import OpenAiProvider
from services.llm_worker.providers.protocol import TokensUsed
from tests.unit.llm_worker.http_provider import answering, events
from tests.unit.llm_worker.support import call, pieces, usage_of, with_config

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


async def openai_says(usage: Any) -> TokensUsed:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    word = {**chunk, "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    body = events(json.dumps(word), json.dumps({**chunk, "usage": usage}), "[DONE]")
    provider = OpenAiProvider(lambda _: "k")
    async with answering(200, body, kind="text/event-stream") as url:
        said = await pieces(provider, with_config(call(), provider="openai", model="m", base_url=url))
    await provider.close()
    return usage_of(said)


async def cli_says(usage: Any, tmp_path: Path) -> TokensUsed:
    path = tmp_path / "program.py"
    line = json.dumps({"type": "result", "subtype": "success", "is_error": False, "usage": usage})
    path.write_text(
        textwrap.dedent(f"""
        import sys
        sys.stdin.read()
        print({line!r}, flush=True)
    """)
    )
    provider = CliProvider(lambda _: "", {})
    return usage_of(await pieces(provider, with_config(call(), provider="cli", argv=(sys.executable, str(path)))))


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
        {"prompt_tokens": 5, "completion_tokens": None, "total_tokens": 5},
        {"completion_tokens": 5},
        {},
    ],
)
async def test_an_openai_server_that_counts_nothing_says_nothing(usage):
    assert not sound(await openai_says(usage))


async def test_what_was_cached_is_a_part_of_the_prompt_and_thoughts_are_a_part_of_the_answer():
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 150}
    assert await openai_says(usage) == TokensUsed(100, 50)
    details = {"prompt_tokens_details": {"cached_tokens": 60}}
    assert await openai_says({**usage, "total_tokens": 107, **details}) == TokensUsed(100, 7, cache_read=60)
    assert await openai_says({**usage, "total_tokens": None, **details}) == TokensUsed(100, 7, cache_read=60)
    nonsense = {"prompt_tokens_details": {"cached_tokens": 101}}
    assert await openai_says({**usage, "total_tokens": 107, **nonsense}) == TokensUsed(100, 7)


async def test_a_program_counts_what_caches_held_and_took(tmp_path):
    usage = {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 7, "output_tokens": 5}
    assert await cli_says(usage, tmp_path) == TokensUsed(50, 5, cache_read=40, cache_written=7)
    assert await cli_says({"input_tokens": 3, "output_tokens": 5}, tmp_path) == TokensUsed(3, 5)


@pytest.mark.parametrize("usage", [{}, {"output_tokens": 5}, {"input_tokens": 3}, {"input_tokens": "3"}])
async def test_a_program_that_does_not_count_says_nothing(tmp_path, usage):
    assert not sound(await cli_says(usage, tmp_path))


async def test_anthropic_without_a_count_says_nothing():
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
    steps = [
        {"type": "message_start", "message": {**message, "usage": {"input_tokens": None, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {step['type']}\ndata: {json.dumps(step)}\n\n" for step in steps)
    provider = AnthropicProvider(lambda _: "k")
    async with answering(200, body, kind="text/event-stream") as url:
        said = await pieces(provider, with_config(call(), provider="anthropic", model="m", base_url=url))
    await provider.close()
    assert not sound(usage_of(said))
