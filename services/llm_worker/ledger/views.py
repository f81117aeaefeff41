"""What people are told of the ledger: limits, calls, estimates."""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import msgspec

from contracts.codec import CommitCodec
from contracts.errors import Rejected
from contracts.ledger import (
    Estimate,
    LedgerEvent,
    LedgerQuery,
    LedgerView,
    LimitsView,
    ModelLimits,
    QueueAsk,
    QueueTold,
    WorkerLimits,
)
from contracts.llm import LlmRequest
from contracts.requests import Nothing
from contracts.streams import EVENTS_LLM_WORKER
from contracts.subjects import LLM_QUEUE
from services.llm_worker import compile as compiler
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.ledger.decider import Reserve, decide
from services.llm_worker.ledger.rows import ROWS_MAX, Rows
from services.llm_worker.ledger.state import (
    ALL,
    DAY_MS,
    WINDOW_MS,
    Held,
    Spent,
    day_account,
    day_of,
    model_account,
    resets_at_ms,
)
from services.llm_worker.models import ModelTable
from services.llm_worker.prices import Prices
from services.llm_worker.replies import reply
from services.llm_worker.resolving import Resolver
from services.runtime.bus import Bus, Message
from services.runtime.clock import Clock, rfc3339
from services.runtime.ids import Ids
from services.runtime.rpc import Caller

GATHER_S: Final = 0.15
_ENCODE: Final = msgspec.json.Encoder().encode
_ASK: Final = msgspec.json.Decoder(QueueAsk).decode
_TOLD: Final = msgspec.json.Decoder(QueueTold).decode


class LedgerVerbs:
    """Answers `llm.limits`, `llm.ledger` and `llm.estimate`. `log` is structlog's."""

    def __init__(
        self,
        *,
        bus: Bus,
        cashier: Cashier,
        codec: CommitCodec[LedgerEvent],
        models: ModelTable,
        resolver: Resolver,
        prices: Prices,
        clock: Clock,
        ids: Ids,
        allow_unpriced: bool,
        log: Any,
    ) -> None:
        self._bus, self._cashier, self._codec = bus, cashier, codec
        self._models, self._resolver, self._prices = models, resolver, prices
        self._clock, self._ids, self._allow_unpriced, self._log = clock, ids, allow_unpriced, log

    async def start(self) -> None:
        """Answer the other workers."""
        await self._bus.subscribe(LLM_QUEUE, self.hear)

    def hear(self, message: Message) -> None:
        """Another worker, or this one, asks how many calls wait here."""
        told = QueueTold(self._cashier.worker_id, self._cashier.book.waiting, self._agreed())
        reply(self._bus, self._log, message.reply, _ENCODE(told))

    async def limits(self, _request: Nothing, _caller: Caller) -> LimitsView:
        """The limits of all workers together, and what is used of them now."""
        state, now_ms = self._cashier.book.state, self._clock.now_ms()
        limits, day = self._cashier.limits, day_of(now_ms)
        spent, held = state.spent.get(day_account(day), Spent()), state.held.get(day_account(day), Held())
        told = await self._gathered()
        return LimitsView(
            day=day,
            limit_usd_micros=limits.usd_micros,
            spent_usd_micros=spent.usd_micros,
            reserved_usd_micros=held.usd_micros,
            resets_at=rfc3339(resets_at_ms(now_ms)),
            requests_per_minute=limits.per_minute,
            requests_used=self._granted(ALL, now_ms),
            concurrent=limits.concurrent,
            in_flight=state.live.get(ALL, 0),
            queue=sum(one.waiting for one in told),
            tokens=spent.tokens,
            calls=spent.calls,
            cost_unknown=spent.unknown,
            allow_unpriced=self._allow_unpriced,
            models=self._of_models(day, now_ms),
            disagreeing=self._disagreeing(told),
        )

    def _agreed(self) -> list[ModelLimits]:
        """What all workers must go by alike, since the ledger is one."""
        everything = self._cashier.limits
        found = [ModelLimits("", everything.usd_micros, 0, 0, everything.per_minute, 0, everything.concurrent)]
        for name in sorted(self._models.ids()):
            resolved = self._models.resolve(name)
            limits = self._cashier.limits_of(resolved)
            if not limits.lifted and resolved.used == name:
                found.append(ModelLimits(name, limits.usd_micros, 0, 0, limits.per_minute, 0, limits.concurrent))
        return found

    def _disagreeing(self, told: Sequence[QueueTold]) -> list[WorkerLimits]:
        ours = self._agreed()
        others = [
            WorkerLimits(one.worker_id, one.limits) for one in told if one.limits is not None and one.limits != ours
        ]
        if others:
            self._log.warning(
                "limits_disagree",
                workers=[one.worker_id for one in others],
                hint="the configuration changed while some workers ran: restart all of them",
            )
        return others

    def _granted(self, model: str, now_ms: int) -> int:
        return sum(at_ms > now_ms - WINDOW_MS for at_ms in self._cashier.book.state.grants.get(model, ()))

    def _of_models(self, day: str, now_ms: int) -> list[ModelLimits]:
        """Models with limits of their own."""
        state = self._cashier.book.state
        found = []
        for name in self._models.ids():
            resolved = self._models.resolve(name)
            limits = self._cashier.limits_of(resolved)
            if limits.lifted or resolved.used != name:
                continue
            account = model_account(day, name)
            found.append(
                ModelLimits(
                    model=name,
                    limit_usd_micros=limits.usd_micros,
                    spent_usd_micros=state.spent.get(account, Spent()).usd_micros,
                    reserved_usd_micros=state.held.get(account, Held()).usd_micros,
                    requests_per_minute=limits.per_minute,
                    requests_used=self._granted(name, now_ms),
                    concurrent=limits.concurrent,
                    in_flight=state.live.get(name, 0),
                )
            )
        return found

    async def _gathered(self) -> list[QueueTold]:
        """How many calls wait at the limiters of all workers that answer within a moment, and what they go by."""
        told: dict[str, QueueTold] = {}
        inbox = self._bus.inbox()

        def hear(message: Message) -> None:
            try:
                answer = _TOLD(message.data)
            except msgspec.MsgspecError:
                return
            told[answer.worker_id] = answer

        subscription = await self._bus.subscribe(inbox, hear)
        try:
            self._bus.publish(LLM_QUEUE, _ENCODE(QueueAsk(self._cashier.worker_id)), reply=inbox)
            await asyncio.sleep(GATHER_S)
        finally:
            await subscription.unsubscribe()
        told[self._cashier.worker_id] = QueueTold(self._cashier.worker_id, self._cashier.book.waiting)
        return list(told.values())

    async def ledger(self, request: LedgerQuery, _caller: Caller) -> LedgerView:
        """Calls that fit, summed, and the newest of them. Raises bad_request."""
        if not 0 <= request.limit <= ROWS_MAX:
            raise Rejected("bad_request", f"limit must be 0 to {ROWS_MAX}", field="limit", min=0, max=ROWS_MAX)
        after, until = await self._bounds(request.day)
        rows = Rows(request)
        async for record in self._bus.history(EVENTS_LLM_WORKER, SUBJECT, after):
            commit = self._codec.decode(record.data, skip_unknown=True)
            if until and commit.at >= until and not rows.held:
                break
            rows.take(commit.events)
        return rows.view()

    async def _bounds(self, day: str | None) -> tuple[int, str]:
        """Behind which sequence a day begins, and before which time it ends."""
        if day is None:
            return 0, ""
        try:
            began_ms = date.fromisoformat(day).toordinal() * DAY_MS - date(1970, 1, 1).toordinal() * DAY_MS
        except ValueError as error:
            raise Rejected("bad_request", "day must be like 2026-11-28", field="day") from error
        first = await self._bus.first_since(EVENTS_LLM_WORKER, SUBJECT, rfc3339(began_ms))
        return max(0, first - 1), rfc3339(began_ms + DAY_MS)

    async def estimate(self, request: LlmRequest, _caller: Caller) -> Estimate:
        """What a request would use and cost; nothing is reserved. Raises invalid_request, unknown_model, …"""
        compiler.check_request(request)
        if not request.model_id:
            raise Rejected("missing_param", "the request names no model", param="model_id", field="model_id")
        resolved = self._resolver.resolve(request)
        quote = await self._prices.quote(request, resolved)
        wish = Reserve(
            self._ids.new(),
            self._cashier.worker_id,
            0,
            resolved.shown,
            quote.tokens_max,
            quote.usd_micros_max,
            0,
            self._cashier.limits,
            self._cashier.limits_of(resolved),
            allow_unpriced=request.params.allow_unpriced or self._allow_unpriced,
        )
        refusal = None
        try:
            decide(wish, self._cashier.book.state, self._clock.now_ms())
        except Rejected as error:
            refusal = error.code
        return Estimate(
            model_id=request.model_id,
            model_used=resolved.shown,
            provider=resolved.config.provider,
            prompt_tokens=quote.prompt_tokens,
            prompt_tokens_max=quote.prompt_tokens_max,
            completion_tokens_max=quote.completion_tokens_max,
            cost_usd_micros=quote.usd_micros,
            cost_usd_micros_max=quote.usd_micros_max,
            refusal=refusal,
        )
