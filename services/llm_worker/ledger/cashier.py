"""Between a call and the ledger: what the call may cost, on whose account, and that its end is written down once.

Where nothing is limited a call need not ask, unless a provider may bill it although nobody hears the answer: it begins
at once, and only what it cost is noted, with what others cost.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.ledger import HEADER_BUDGET, Abandoned, Charge, LedgerEvent, LlmPaid
from contracts.llm import Disputed, LlmAnswer, LlmError, Usage
from services.llm_worker.config import Config
from services.llm_worker.flight import Flight
from services.llm_worker.journal import Key, settles_itself
from services.llm_worker.ledger.abandoned import tokens_of, told_with, usd_of
from services.llm_worker.ledger.book import CAUGHT_UP_S, Book
from services.llm_worker.ledger.decider import AskAgain, Later, Release, Reserve, Reuse
from services.llm_worker.ledger.journaled import Failed, Journaled, journaled
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.past import Past
from services.llm_worker.ledger.payment import Pay
from services.llm_worker.ledger.state import Open
from services.llm_worker.models import Resolved
from services.llm_worker.prices import Prices
from services.llm_worker.unjudged import Unjudged
from services.runtime.clock import Clock
from services.runtime.event_store import Recorded
from services.runtime.metrics import Metrics

MARGIN_MS: Final = 10_000
"""So long after its timeout a call is certainly over."""
LOST_REMEMBERED_MAX: Final = 10_000
IN_THE_LOG_S: Final = 30.0
"""A payment that another worker may have made is looked for that long: the answer must say the same."""
Closing = asyncio.Future[Sequence[LedgerEvent]]
NOBODY: Final = Charge()
_CHARGE: Final = msgspec.json.Decoder(Charge).decode


class Cashier:
    """Reserves before calls and closes after them."""

    def __init__(
        self,
        *,
        book: Book,
        past: Past,
        unjudged: Unjudged,
        prices: Prices,
        config: Config,
        clock: Clock,
        metrics: Metrics,
        worker_id: str,
    ) -> None:
        self.book, self._past, self._unjudged, self._prices, self._config = book, past, unjudged, prices, config
        self._clock, self._metrics, self.worker_id = clock, metrics, worker_id
        self.limits = config.limits.limits
        self._asked: set[str] = set()
        self._lost: OrderedDict[str, None] = OrderedDict()

    # -- before the call ---------------------------------------------------------------------------------------------

    async def reserve(self, flight: Flight, until_s: float) -> None:
        """Wait until the call may begin, at most until `until_s` of the loop's clock.

        Raises Rejected: price_unknown, budget_exceeded, epic_budget_exceeded, rate_limit_exceeded, provider_overloaded.
        """
        limits, charge = self.limits_of(flight.resolved), charge_of(flight)
        unlimited = self.limits.lifted and limits.lifted and not charge.budgets
        if unlimited and not flight.resolved.billed_by and not self._abandoned(flight):
            if self._held(flight.key):
                # The model that was to answer is limited, the one that answers instead is not.
                await self._done(flight.key, self.book.ask(self._release(flight, "fallback")))
            flight.reserved = False
            return
        wish = await self.wish(flight, charge)
        began_s = self._clock.monotonic_s()
        self._asked.add(flight.key.corr_id)
        outcome = "cancelled"
        try:
            await self.book.ask(wish, until_s)
            outcome = "granted"
            self._is_reserved(flight)
        except Rejected as error:
            self._asked.discard(flight.key.corr_id)
            outcome = error.code
            if isinstance(error, Later):
                raise Rejected(error.code, error.message, **self._how_long(error)) from None
            raise
        finally:
            self._metrics.observe(
                "htdag_llm_limiter_wait_seconds", self._clock.monotonic_s() - began_s, outcome=outcome
            )

    def may_be_answered(self, flight: Flight) -> bool:
        """Whether a call that was just reserved here was under way elsewhere, or is paid: then it is no new one."""
        left = self.book.state.open.get(flight.key.corr_id)
        return flight.reserved and (left is None or left.worker_id != self.worker_id or left.looks)

    def is_paid(self, flight: Flight) -> bool:
        """Whether a call that was just to be reserved is paid already."""
        return flight.key.corr_id not in self.book.state.open

    async def ask_again(self, flight: Flight, until_s: float, *, anew: bool) -> bool:
        """The journal has no answer: the provider is asked anew. False when it is not this worker's to be asked now.

        `anew`: it was paid before the journal was looked into, so whoever answered it died before it was journaled.
        Raises Rejected like `reserve`.
        """
        key = flight.key
        if anew:
            wish = await self.wish(flight, charge_of(flight))
            await self.book.ask(wish._replace(anew=True), until_s)
        else:
            await self.book.ask(AskAgain(key.corr_id, self.worker_id, flight.request_seq), until_s)
        self._is_reserved(flight)
        return not self.may_be_answered(flight)

    def _is_reserved(self, flight: Flight) -> None:
        self._lost.pop(flight.key.corr_id, None)
        granted = self.book.state.open.get(flight.key.corr_id)
        flight.abandoned = granted.abandoned if granted is not None else ()
        flight.reserved = True

    async def wish(self, flight: Flight, charge: Charge) -> Reserve:
        """What is asked of the ledger for one call."""
        request, resolved, key = flight.request, flight.resolved, flight.key
        quote = await self._prices.quote(request, resolved)
        return Reserve(
            key.corr_id,
            self.worker_id,
            flight.request_seq,
            resolved.shown,
            quote.tokens_max,
            quote.usd_micros_max,
            request.params.timeout_ms + MARGIN_MS,
            self.limits,
            self.limits_of(resolved),
            tuple(charge.budgets),
            request.params.allow_unpriced or self._config.limits.allow_unpriced,
            key.run_id,
            key.node_id,
            charge.task_id,
            charge.epic_id,
            resolved.billed_by,
            lost=key.corr_id in self._lost,
        )

    def limits_of(self, resolved: Resolved) -> Limits:
        """The limits of one model."""
        config = resolved.config
        return Limits(round(config.usd_per_day * 1_000_000), config.requests_per_minute, config.concurrent)

    def _how_long(self, error: Later) -> dict[str, Any]:
        if error.at_ms is None:
            return error.detail
        return {**error.detail, "retry_after": max(1, -(-(error.at_ms - self._clock.now_ms()) // 1000))}

    def let_go(self, flight: Flight) -> Closing | None:
        """This worker leaves a call to another one: what it held is free if nobody was asked. None: nothing to write.

        Whoever takes over must otherwise believe that somebody was. Of a call that this worker took over itself nothing
        is free either: to release it would pay, and end, what another one goes on with.
        """
        key = flight.key
        if key.corr_id not in self._asked:
            return None
        if flight.asked or self._abandoned(flight):
            self._asked.discard(key.corr_id)
            return None
        return self._done(key, self.book.ask(self._release(flight, "given_back")))

    def lost(self, flight: Flight) -> None:
        """What was heard for a call could not be kept, however long we tried: whoever asks again pays for that, too."""
        self._asked.discard(flight.key.corr_id)
        self._lost[flight.key.corr_id] = None
        if len(self._lost) > LOST_REMEMBERED_MAX:
            self._lost.popitem(last=False)

    # -- after it ----------------------------------------------------------------------------------------------------

    async def told(self, flight: Flight, answer: LlmAnswer | LlmError) -> LlmAnswer | LlmError:
        """The outcome as everybody gets it: with what askings may have cost that nobody heard the answer of.

        It is decided here, before anybody sees the answer: the bill that `close` writes says the same. A worker that
        was only frozen does not know that its call was taken over, so it looks into the log first.
        """
        if self._billed(flight):
            await self.book.catch_up()
        paid = await self._paid_before(flight)
        flight.abandoned = self._abandoned(flight) if paid is None else tuple(paid.abandoned)
        return told_with(answer, flight.abandoned)

    def close(self, flight: Flight, answer: LlmAnswer | LlmError) -> Closing | None:
        """Write down how a call ended, after its answer is journaled. None when there is nothing to write.

        `answer` is what this worker itself got, without what `told` adds.
        """
        key, held = flight.key, self._held(flight.key)
        if flight.settled is not None and not _failed(flight.settled):
            return flight.settled
        if isinstance(answer, LlmAnswer) and not answer.cached:
            bill = self._bill_of(flight, answer)
        elif flight.used is not None:
            used, model = flight.used, flight.resolved.shown
            bill = self._bill(flight, model, used.prompt_tokens, used.completion_tokens, used.cost_usd_micros)
            bill = bill._replace(estimated=True)
        elif flight.abandoned:
            bill = self._bill(flight, flight.resolved.shown, 0, 0, 0)._replace(estimated=True)
        elif held:
            # Somebody paid for it before, or nobody has to.
            code = "cached" if isinstance(answer, LlmAnswer) else str(answer.error["code"])
            return self._done(key, self.book.ask(self._release(flight, code)))
        else:
            return None
        return self._settle(flight, bill)

    def answered(self, flight: Flight, answer: LlmAnswer) -> None:
        """A provider has answered, and what we do with that takes a while: what was held for the call is free now.

        The answer is kept before that. What another worker heard may be paid already.
        """
        flight.settled = self._settle(flight, self._bill_of(flight, answer))
        flight.settled.add_done_callback(_unheard)

    def _settle(self, flight: Flight, bill: Pay) -> Closing:
        if flight.heard is not None:
            return self._done(flight.key, asyncio.ensure_future(self._paid_or_pays(bill, flight.heard.entry)))
        return self._done(flight.key, self.book.ask(bill)) if self._held(flight.key) else self.book.note(bill)

    def close_journaled(self, flight: Flight, entry: Recorded) -> Closing | None:
        """The same for a request that came again: whoever journaled its answer may have died before it wrote this."""
        if not settles_itself(entry, flight.request_seq):
            return None
        return self._close_recorded(flight.key, entry, flight.request_seq, flight)

    def reused(self, corr_id: str) -> None:
        """Somebody asked for a call once more and has its answer: for the ledger's readers, nobody waits for it."""
        self.book.note(Reuse(corr_id, self.worker_id)).add_done_callback(_unheard)

    def close_orphan(self, corr_id: str, left: Open, entry: Recorded | None) -> Closing:
        """If a dead worker's call is still its own: paid if its answer is journaled, or may be billed unheard.

        The answer to another request of the same call is paid with that one.
        """
        key = Key(left.run_id, left.node_id, corr_id)
        if entry is not None and settles_itself(entry, left.request_seq):
            found = self._close_recorded(key, entry, left.request_seq, None)
            if found is not None:
                return found
        return self.book.ask(Release(corr_id, self.worker_id, "orphaned", holder=left.worker_id, unheard=True))

    def _close_recorded(self, key: Key, entry: Recorded, request_seq: int, flight: Flight | None) -> Closing | None:
        said = journaled(entry.data)
        failed = said.error
        outcome: Journaled | Failed = said if failed is None else failed
        used, cost, besides = outcome.usage, outcome.cost_usd_micros, outcome.abandoned_usd_micros
        if used is not None and said.cached and outcome.abandoned_tokens:
            used = Usage(0, 0, 0)  # only what was abandoned before is paid
        elif used is None or said.cached:
            if not self._held(key):
                return None
            code = "cached" if failed is None else failed.code
            return self._done(key, self.book.ask(Release(key.corr_id, self.worker_id, code, request_seq=request_seq)))
        charge = NOBODY if flight is None else charge_of(flight)
        bill = Pay(
            key.corr_id,
            self.worker_id,
            request_seq,
            said.model_used or ("" if flight is None else flight.resolved.shown),
            "" if flight is None else flight.resolved.config.provider,
            used.prompt_tokens,
            used.completion_tokens,
            cost if cost is None or besides is None else cost - besides,
            failed is not None,
            run_id=key.run_id,
            node_id=key.node_id,
            task_id=charge.task_id,
            epic_id=charge.epic_id,
            budgets=tuple(budget.key for budget in charge.budgets),
            abandoned_tokens=outcome.abandoned_tokens,
            abandoned_usd_micros=besides,
        )
        bill = _with_dispute(bill, said.disputed)
        left = self.book.state.open.get(key.corr_id)
        unpaid = left is not None and left.request_seq == request_seq
        if self.book.state.may_have_forgotten(key.corr_id, request_seq) and not unpaid:
            return self._done(key, asyncio.ensure_future(self._pay_journaled(bill, key, entry)))
        return self._done(key, self.book.ask(bill))

    async def _pay_journaled(self, bill: Pay, key: Key, entry: Recorded) -> Sequence[LedgerEvent]:
        """An answer that was judged was paid before it was journaled, and after it was kept."""
        heard = await self._unjudged.find(key)
        since = entry if heard is None else heard.entry
        paid = await self._past.payment(bill.corr_id, bill.request_seq, since)
        return await self.book.ask(bill) if paid is None else ()

    async def _paid_or_pays(self, bill: Pay, since: Recorded) -> Sequence[LedgerEvent]:
        """The payment of a call that another worker kept the answer of: that one's, or ours."""
        paid = await self._past.payment(bill.corr_id, bill.request_seq, since)
        return await self.book.ask(bill) if paid is None else (paid,)

    def _release(self, flight: Flight, reason: str) -> Release:
        """The end of a call of ours that cost nothing. What a dead worker held for it is the orphans' to see to."""
        return Release(flight.key.corr_id, self.worker_id, reason, self.worker_id, flight.request_seq)

    def _abandoned(self, flight: Flight) -> tuple[Abandoned, ...]:
        """What may be billed of other askings. A dead worker's is among it, whether or not the call was taken over.

        Where it was taken over from this worker, which is not dead, one asking less is unheard than all of them.
        """
        left = self.book.state.open.get(flight.key.corr_id)
        if left is None or all(waiter.delivery.seq != left.request_seq for waiter in flight.waiters):
            return flight.abandoned or ()
        if left.worker_id == self.worker_id or (flight.reserved and left.model == flight.resolved.shown):
            return left.abandoned
        return left.unheard

    def _billed(self, flight: Flight) -> bool:
        """Whether anybody may bill an asking of this call that nobody hears the answer of."""
        left = self.book.state.open.get(flight.key.corr_id)
        return bool(flight.resolved.billed_by) or (left is not None and bool(left.unheard))

    async def _paid_before(self, flight: Flight) -> LlmPaid | None:
        """The payment of a call whose outcome is journaled after it, if it has one: both say the same."""
        if flight.settled is None:
            return None
        if flight.heard is not None and _failed(flight.settled):
            self.answered(flight, flight.heard.said.answer)  # the broker was away: whether it is paid stands in the log
        await asyncio.wait([flight.settled], timeout=CAUGHT_UP_S if flight.heard is None else IN_THE_LOG_S)
        if not flight.settled.done() or _failed(flight.settled):
            return None
        return next((event for event in flight.settled.result() if isinstance(event, LlmPaid)), None)

    def _held(self, key: Key) -> bool:
        return key.corr_id in self._asked or key.corr_id in self.book.state.open

    def _done(self, key: Key, closing: Closing) -> Closing:
        self._asked.discard(key.corr_id)
        return closing

    def _bill_of(self, flight: Flight, answer: LlmAnswer) -> Pay:
        usage, cost = answer.usage, answer.cost_usd_micros
        bill = self._bill(flight, answer.model_used, usage.prompt_tokens, usage.completion_tokens, cost)
        return _with_dispute(bill, answer.disputed)

    def _bill(self, flight: Flight, model: str, prompt: int, completion: int, cost: int | None) -> Pay:
        charge, key, abandoned = charge_of(flight), flight.key, flight.abandoned or ()
        return Pay(
            key.corr_id,
            self.worker_id,
            flight.request_seq,
            model,
            flight.resolved.config.provider,
            prompt,
            completion,
            cost,
            run_id=key.run_id,
            node_id=key.node_id,
            task_id=charge.task_id,
            epic_id=charge.epic_id,
            budgets=tuple(budget.key for budget in charge.budgets),
            abandoned_tokens=tokens_of(abandoned),
            abandoned_usd_micros=usd_of(abandoned),
        )


def _failed(closing: Closing) -> bool:
    """Whether it is certain that it will not be written down."""
    return closing.done() and (closing.cancelled() or closing.exception() is not None)


def _unheard(noted: Closing) -> None:
    """Nobody waits for it: also not for its failure."""
    if not noted.cancelled():
        noted.exception()


def _with_dispute(bill: Pay, disputed: Disputed | None) -> Pay:
    if disputed is None:
        return bill
    return bill._replace(disputed_tokens=disputed.tokens, disputed_usd_micros=disputed.usd_micros or 0)


def charge_of(flight: Flight) -> Charge:
    """On whose account a call goes. Raises invalid_request when the header cannot be read."""
    text = flight.waiters[0].delivery.headers.get(HEADER_BUDGET)
    if text is None:
        return NOBODY
    try:
        return _CHARGE(text.encode())
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise Rejected("invalid_request", f"{HEADER_BUDGET}: {error}", field=HEADER_BUDGET) from error
