"""What a call costs, and costs at most, in whole micro-dollars; None where nobody knows.

Dollars per million tokens = micros per token. Prices of the configuration come first, then the bundled table.
"""

import asyncio
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final, NamedTuple

import msgspec

from contracts.llm import LlmRequest
from services.llm_worker.models import UNBILLED, Resolved
from services.llm_worker.providers import mock
from services.llm_worker.providers.protocol import TokensUsed

_MICROS: Final = Decimal(1_000_000)
CHARS_PER_TOKEN: Final = 4
"""Of usual text: a guess, for what nobody has counted."""
TOKENS_PER_MESSAGE: Final = 16
"""Around each message: its role, and the marks of the chat template."""
TOKENS_AROUND: Final = 64
TOKENS_PER_PART: Final = 2_000
"""A part of a message that is no text, an image say, whatever its bytes are."""
TOKENS_FOR_TOOLS: Final = 600
"""What a provider puts before the tools by itself."""
TOKENS_FOR_SCHEMA: Final = 200
"""The same before the schema of an answer."""
_SAMPLE: Final = 1_000
"""Some models ask more for long prompts; this is a short one."""
_ENCODE: Final = msgspec.json.Encoder().encode


class Quote(NamedTuple):
    """A call before it is made: its likely and its largest prompt, its longest answer, and the cost of both."""

    prompt_tokens: int
    prompt_tokens_max: int
    completion_tokens_max: int
    usd_micros: int | None
    usd_micros_max: int | None

    @property
    def tokens_max(self) -> int:
        """All tokens of the worst case."""
        return self.prompt_tokens_max + self.completion_tokens_max


class Prices:
    """Prices of models. Loading the bundled table reads megabytes, so the first use of it leaves the event loop."""

    def __init__(self) -> None:
        self._loaded = False

    async def cost_micros(
        self, resolved: Resolved, used: TokensUsed, commands: Mapping[str, Any] | None = None
    ) -> int | None:
        """The cost of one call. A local model costs nothing; a command line program's bill is not known here.

        `commands` are those of a request to the mock: their price comes before that of the configuration.
        """
        if used.cost_usd_micros is not None:
            return used.cost_usd_micros
        config = resolved.config
        if config.provider == "mock":
            script = mock.check_commands(resolved, commands)
            if script.priced:
                return mock.cost_micros(script, used.prompt_tokens, used.completion_tokens)
        if config.price_in_usd_per_mtok is not None and config.price_out_usd_per_mtok is not None:
            micros = Decimal(str(config.price_in_usd_per_mtok)) * used.prompt_tokens
            micros += Decimal(str(config.price_out_usd_per_mtok)) * used.completion_tokens
            return _whole(micros)
        if config.provider in UNBILLED:
            return 0
        if config.provider in ("openai", "anthropic"):
            if self._loaded:
                return table_cost_micros(config.provider, config.model or resolved.used, used)
            cost = await asyncio.to_thread(table_cost_micros, config.provider, config.model or resolved.used, used)
            self._loaded = True
            return cost
        return None

    async def per_mtok(self, resolved: Resolved) -> tuple[float | None, float | None]:
        """Dollars per million tokens of a short prompt and of an answer, for people; None where nobody knows."""
        config = resolved.config
        if config.provider == "mock" and mock.check_commands(resolved, None).priced:
            return None, None  # it may be a price a call
        if config.price_in_usd_per_mtok is not None and config.price_out_usd_per_mtok is not None:
            return config.price_in_usd_per_mtok, config.price_out_usd_per_mtok
        if config.provider in UNBILLED:
            return 0.0, 0.0
        asked = await self.cost_micros(resolved, TokensUsed(_SAMPLE, 0))
        said = await self.cost_micros(resolved, TokensUsed(0, _SAMPLE))
        if asked is None or said is None:
            return None, None
        return asked / _SAMPLE, said / _SAMPLE

    async def quote(self, request: LlmRequest, resolved: Resolved) -> Quote:
        """The worst case of a call: every byte of the prompt a token, and an answer as long as it may be.

        Raises invalid_request for wrong commands of the mock.
        """
        answer = longest_answer(request, resolved)
        likely, most = prompt_tokens(request)
        if resolved.config.provider == "mock":
            likely = most = mock.prompt_tokens(request)
            cost = await self.cost_micros(resolved, TokensUsed(most, answer), request.params.mock)
            return Quote(likely, most, answer, cost, cost)
        return Quote(
            likely,
            most,
            answer,
            await self.cost_micros(resolved, TokensUsed(likely, answer)),
            await self.cost_micros(resolved, TokensUsed(most, answer)),
        )


def longest_answer(request: LlmRequest, resolved: Resolved) -> int:
    """How many tokens the answer may have: what was asked for, or what the model is allowed."""
    asked, most = request.params.max_tokens, resolved.config.max_output_tokens
    return asked if most is None else min(asked, most)


def prompt_tokens(request: LlmRequest) -> tuple[int, int]:
    """The likely number of tokens of a prompt, and one that it cannot exceed: a token has at least one byte."""
    messages, params = request.input.messages, request.params
    size = len(_ENCODE(messages))
    around = TOKENS_AROUND + TOKENS_PER_MESSAGE * len(messages)
    around += TOKENS_PER_PART * sum(_parts_without_text(message) for message in messages)
    if params.tools:
        size += len(_ENCODE(params.tools))
        around += TOKENS_FOR_TOOLS
    if params.response_schema is not None:
        size += len(_ENCODE(params.response_schema))
        around += TOKENS_FOR_SCHEMA
    return size // CHARS_PER_TOKEN + 1, size + around


def _parts_without_text(message: dict[str, Any]) -> int:
    content = message.get("content")
    if not isinstance(content, list):
        return 0
    return sum(not (isinstance(part, dict) and part.get("type") == "text") for part in content)


def table_cost_micros(provider: str, model: str, used: TokensUsed) -> int | None:
    """The cost by the bundled price table; None for a model it does not know."""
    import genai_prices

    usage = genai_prices.Usage(
        input_tokens=used.prompt_tokens,
        output_tokens=used.completion_tokens,
        # Its price of the prompt where the table has none for caches.
        cache_read_tokens=used.cache_read or None,
        cache_write_tokens=used.cache_written or None,
    )
    known_as = provider if provider == "anthropic" or not model.startswith("gemini") else "google"
    try:
        price = genai_prices.calc_price(usage, model_ref=model, provider_id=known_as)
    except LookupError:
        return None
    return _whole(price.total_price * _MICROS)


def _whole(micros: Decimal) -> int:
    return int(micros.to_integral_value(rounding=ROUND_CEILING))
