"""What people are told of the ledger: limits, calls, estimates."""

import asyncio
from datetime import date
from typing import Final

import msgspec

from contracts.codec import CommitCodec
from contracts.errors import Rejected
from contracts.ledger import (
    Estimate,
    LedgerEvent,
    LedgerQuery,
    LedgerRow,
    LedgerView,
    LimitsView,
    LlmPaid,
    LlmReleased,
    LlmReserved,
    ModelLimits,
    QueueAsk,
    QueueTold,
)
from contracts.llm import LlmRequest
from contracts.requests import Nothing
from contracts.streams import EVENTS_LLM_WORKER
from contracts.subjects import LLM_QUEUE
from services.llm_worker import compile as compiler
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.ledger.decider import Reserve, decide
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
from services.llm_worker.resolving import Resolver
from services.runtime.bus import Bus, Message
from services.runtime.clock import Clock, rfc3339
from services.runtime.ids import Ids
from services.runtime.rpc import Caller

ROWS_MAX: Final = 1_000
GATHER_S: Final = 0.15
_ENCODE: Final = msgspec.json.Encoder().encode
_ASK: Final = msgspec.json.Decoder(QueueAsk).decode
_TOLD: Final = msgspec.json.Decoder(QueueTold).decode


class LedgerVerbs:
    """Answers `llm.limits`, `llm.ledger` and `llm.estimate`."""

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
    ) -> None:
        self._bus, self._cashier, self._codec = bus, cashier, codec
        self._models, self._resolver, self._prices = models, resolver, prices
        self._clock, self._ids, self._allow_unpriced = clock, ids, allow_unpriced

    async def start(self) -> None:
        """Answer the other workers."""
        await self._bus.subscribe(LLM_QUEUE, self.hear)

    def hear(self, message: Message) -> None:
        """Another worker, or this one, asks how many calls wait here."""
        if message.reply:
            told = QueueTold(self._cashier.worker_id, self._cashier.book.waiting)
            self._bus.publish(message.reply, _ENCODE(told))

    async def limits(self, _request: Nothing, _caller: Caller) -> LimitsView:
        """The limits of all workers together, and what is used of them now."""
        state, now_ms = self._cashier.book.state, self._clock.now_ms()
        limits, day = self._cashier.limits, day_of(now_ms)
        spent, held = state.spent.get(day_account(day), Spent()), state.held.get(day_account(day), Held())
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
            queue=await self._queue(),
            tokens=spent.tokens,
            calls=spent.calls,
            cost_unknown=spent.unknown,
            allow_unpriced=self._allow_unpriced,
            models=self._of_models(day, now_ms),
        )

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

    async def _queue(self) -> int:
        """How many calls wait at the limiters of all workers that answer within a moment."""
        told: dict[str, int] = {}
        inbox = self._bus.inbox()

        def hear(message: Message) -> None:
            try:
                answer = _TOLD(message.data)
            except msgspec.MsgspecError:
                return
            told[answer.worker_id] = answer.waiting

        subscription = await self._bus.subscribe(inbox, hear)
        try:
            self._bus.publish(LLM_QUEUE, _ENCODE(QueueAsk(self._cashier.worker_id)), reply=inbox)
            await asyncio.sleep(GATHER_S)
        finally:
            await subscription.unsubscribe()
        told[self._cashier.worker_id] = self._cashier.book.waiting
        return sum(told.values())

    async def ledger(self, request: LedgerQuery, _caller: Caller) -> LedgerView:
        """Calls that fit, summed, and the newest of them. Raises bad_request."""
        if not 0 <= request.limit <= ROWS_MAX:
            raise Rejected("bad_request", f"limit must be 0 to {ROWS_MAX}", field="limit", min=0, max=ROWS_MAX)
        after, until = await self._bounds(request.day)
        rows: dict[str, LedgerRow] = {}
        count = tokens = cost = unknown = 0
        async for record in self._bus.history(EVENTS_LLM_WORKER, SUBJECT, after):
            commit = self._codec.decode(record.data, skip_unknown=True)
            if until and commit.at >= until and not any(row.status == "reserved" for row in rows.values()):
                break
            for event in commit.events:
                row = _row(rows.get(event.corr_id), event)
                if row is None or not _fits(request, row, event):
                    continue
                if isinstance(event, LlmPaid):
                    count, tokens = count + 1, tokens + event.prompt_tokens + event.completion_tokens
                    cost, unknown = cost + (event.cost_usd_micros or 0), unknown + (event.cost_usd_micros is None)
                rows.pop(event.corr_id, None)
                rows[event.corr_id] = row
                if len(rows) > 2 * ROWS_MAX:
                    _forget(rows)
        held = [row for row in rows.values() if row.status == "reserved"]
        return LedgerView(
            calls=count,
            tokens=tokens,
            cost_usd_micros=cost,
            cost_unknown=unknown,
            reserved=len(held),
            reserved_usd_micros=sum(row.reserved_usd_micros or 0 for row in held),
            rows=list(rows.values())[-request.limit :] if request.limit else [],
        )

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


def _row(before: LedgerRow | None, event: LedgerEvent) -> LedgerRow | None:
    """A call as it stands behind one more event; None when nothing is known of it."""
    at = rfc3339(event.at_ms)
    change = msgspec.structs.replace
    match event:
        case LlmReserved():
            return LedgerRow(
                event.corr_id,
                "reserved",
                at,
                event.model,
                event.run_id,
                event.node_id,
                event.task_id,
                event.epic_id,
                event.worker_id,
                reserved_usd_micros=event.usd_micros,
                reserved_tokens=event.tokens,
            )
        case LlmPaid():
            row = before or LedgerRow(event.corr_id, "paid", at)
            return change(
                row,
                status="paid",
                at=at,
                model=event.model,
                run_id=event.run_id,
                node_id=event.node_id,
                task_id=event.task_id,
                epic_id=event.epic_id,
                worker_id=event.worker_id,
                prompt_tokens=event.prompt_tokens,
                completion_tokens=event.completion_tokens,
                cost_usd_micros=event.cost_usd_micros,
                estimated=event.estimated,
            )
        case LlmReleased():
            return None if before is None else change(before, status="released", at=at, reason=event.reason)
        case _:
            return None if before is None else change(before, worker_id=event.worker_id)


def _fits(request: LedgerQuery, row: LedgerRow, event: LedgerEvent) -> bool:
    day = event.day if isinstance(event, LlmPaid) else row.at[:10]
    return all(
        wanted is None or wanted == found
        for wanted, found in (
            (request.corr_id, row.corr_id),
            (request.run_id, row.run_id),
            (request.epic_id, row.epic_id),
            (request.day, day),
        )
    )


def _forget(rows: dict[str, LedgerRow]) -> None:
    """The oldest calls that have ended are only in the sums."""
    for corr_id in [corr_id for corr_id, row in rows.items() if row.status != "reserved"][:ROWS_MAX]:
        del rows[corr_id]
