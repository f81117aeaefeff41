"""The bill of a call: what its provider says it used, as far as that can be believed, and never more than was held.

A limit is a promise to whoever pays, and a count is only what a stranger's server says. So what is beyond the worst
case is kept apart, as a dispute: it is told in the answer, the ledger, the metrics and the log, but it is not spent.
"""

from typing import Any, Final, NamedTuple

from contracts.llm import Disputed
from services.llm_worker.flight import Flight
from services.llm_worker.listening import Heard
from services.llm_worker.prices import Prices, Quote, longest_answer, prompt_tokens
from services.llm_worker.providers.protocol import TokensUsed
from services.runtime.metrics import Metrics

SLACK_TOKENS: Final = 16
"""Servers differ in whether they count marks of their own. So much beyond is not paid either, but no alarm."""


class Bill(NamedTuple):
    """Tokens that count, what they cost, whether they are a guess, and what was reported beyond the worst case."""

    used: TokensUsed
    guessed: bool
    cost_usd_micros: int | None
    disputed: Disputed | None = None


class Biller:
    """Makes bills out of reports. `log` is structlog's."""

    def __init__(self, prices: Prices, metrics: Metrics, log: Any) -> None:
        self._prices, self._metrics, self._log = prices, metrics, log

    async def bill(self, flight: Flight, heard: Heard) -> Bill:
        """What is written down for a call. It never fails: the call is paid, whatever we think of its bill."""
        resolved = flight.resolved
        used, guessed = heard.tokens_used()
        if heard.senseless:
            self._log.warning("usage_senseless", model=resolved.used, corr_id=flight.key.corr_id)
        try:
            quote = await self._prices.quote(flight.request, resolved)
            within = cut_to(used, quote)
            cost = await self._cost(flight, within, quote)
            if guessed or within[:2] == used[:2]:
                return Bill(within, guessed, cost)
            return Bill(within, guessed, cost, await self._dispute(flight, used, within, cost))
        except Exception:  # prices are a table of somebody else's: without them the cost is unknown, never zero
            self._log.exception("bill_broke", model=resolved.used, corr_id=flight.key.corr_id)
            return Bill(used if guessed else TokensUsed(0, 0), True, None)

    async def _cost(self, flight: Flight, used: TokensUsed, quote: Quote) -> int | None:
        cost = await self._prices.cost_micros(flight.resolved, used, flight.request.params.mock)
        if cost is None or quote.usd_micros_max is None:
            return cost
        return min(cost, quote.usd_micros_max)

    async def _dispute(self, flight: Flight, used: TokensUsed, within: TokensUsed, cost: int | None) -> Disputed:
        tokens = used.prompt_tokens + used.completion_tokens - within.prompt_tokens - within.completion_tokens
        reported = await self._prices.cost_micros(flight.resolved, used, flight.request.params.mock)
        usd = None if cost is None or reported is None else max(0, reported - cost)
        provider, model = flight.resolved.config.provider, flight.resolved.shown
        self._metrics.inc("htdag_llm_disputed_tokens_total", tokens, provider=provider, model=model)
        if usd:
            self._metrics.inc("htdag_llm_disputed_usd_micros_total", usd, provider=provider, model=model)
        self._log.error(
            "usage_disputed",
            model=model,
            corr_id=flight.key.corr_id,
            tokens=tokens,
            usd_micros=usd,
            hint="the provider reports more than the call could use; compare its invoice with the ledger",
        )
        return Disputed(tokens, usd)


def all_of(flight: Flight) -> TokensUsed:
    """All tokens that are reserved for a call."""
    return TokensUsed(prompt_tokens(flight.request)[1], longest_answer(flight.request, flight.resolved))


def cut_to(used: TokensUsed, quote: Quote) -> TokensUsed:
    """The part of a report that the worst case allows."""
    prompt = min(used.prompt_tokens, quote.prompt_tokens_max)
    read = min(used.cache_read, prompt)
    return used._replace(
        prompt_tokens=prompt,
        completion_tokens=min(used.completion_tokens, quote.completion_tokens_max),
        cache_read=read,
        cache_written=min(used.cache_written, prompt - read),
    )
