"""What a call cost, in whole micro-dollars; None where nobody knows. Dollars per million tokens = micros per token."""

import asyncio
from decimal import ROUND_CEILING, Decimal
from typing import Final

from services.llm_worker.models import Resolved
from services.llm_worker.providers.protocol import TokensUsed

_MICROS: Final = Decimal(1_000_000)


class Prices:
    """Prices of the configuration first, then of the bundled table, which is loaded at its first use."""

    async def cost_micros(self, resolved: Resolved, used: TokensUsed) -> int | None:
        """The cost of one call. A local model costs nothing; a command line program's bill is not known here."""
        if used.cost_usd_micros is not None:
            return used.cost_usd_micros
        config = resolved.config
        if config.price_in_usd_per_mtok is not None and config.price_out_usd_per_mtok is not None:
            micros = Decimal(str(config.price_in_usd_per_mtok)) * used.prompt_tokens
            micros += Decimal(str(config.price_out_usd_per_mtok)) * used.completion_tokens
            return _whole(micros)
        if config.provider == "embedded":
            return 0
        if config.provider in ("openai", "anthropic"):
            # Loading the table reads megabytes: not on the event loop.
            return await asyncio.to_thread(table_cost_micros, config.provider, config.model or resolved.used, used)
        return None


def table_cost_micros(provider: str, model: str, used: TokensUsed) -> int | None:
    """The cost by the bundled price table; None for a model it does not know."""
    import genai_prices

    usage = genai_prices.Usage(input_tokens=used.prompt_tokens, output_tokens=used.completion_tokens)
    known_as = provider if provider == "anthropic" or not model.startswith("gemini") else "google"
    try:
        price = genai_prices.calc_price(usage, model_ref=model, provider_id=known_as)
    except LookupError:
        return None
    return _whole(price.total_price * _MICROS)


def _whole(micros: Decimal) -> int:
    return int(micros.to_integral_value(rounding=ROUND_CEILING))
