"""Counts of tokens as providers write them. What is missing or no number is no count: unknown, never zero. Pure."""

from typing import Any

from services.llm_worker.providers.bounds import NO_COUNT
from services.llm_worker.providers.protocol import TokensUsed


def plain(usage: Any) -> TokensUsed:
    """Usage in our own words, as foreign workers say it."""
    told = usage if isinstance(usage, dict) else {}
    return TokensUsed(_count(told.get("prompt_tokens")), _count(told.get("completion_tokens")))


def beside_caches(prompt: Any, completion: Any, read: Any, written: Any) -> TokensUsed:
    """Usage in Anthropic's words: `prompt` is only what no cache held or took; caches may be left out."""
    read, written = (0 if count is None else _count(count) for count in (read, written))
    parts = (_count(prompt), read, written)
    return TokensUsed(
        NO_COUNT if NO_COUNT in parts else sum(parts), _count(completion), cache_read=read, cache_written=written
    )


def with_total(prompt: Any, completion: Any, total: Any, cached: Any) -> TokensUsed:
    """Usage in OpenAI's words: `cached` is a part of `prompt`.

    Servers whose models think may leave their thoughts out of `completion` and count them in `total` alone.
    """
    prompt, completion, total = _count(prompt), _count(completion), _count(total)
    if NO_COUNT not in (prompt, completion, total):
        completion = max(completion, total - prompt)
    read = _count(cached)
    return TokensUsed(prompt, completion, cache_read=read if 0 < read <= prompt else 0)


def _count(said: Any) -> int:
    return said if type(said) is int else NO_COUNT
