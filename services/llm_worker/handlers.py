"""The request verbs of llm-worker: models, reset, workers, replay, repeat, tail, cancel."""

from collections.abc import Callable
from typing import Any

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmAsked, LlmToken, ModelView, WorkerView
from contracts.requests import CorrRef, ModelRef, Nothing, RepeatRef, ReplayRef, TokensRef
from contracts.streams import LLM_TOKENS
from contracts.subjects import LLM_CANCEL, check_id, llm_response, llm_tokens
from services.llm_worker.backlog import Backlog
from services.llm_worker.breaker.breakers import Breakers
from services.llm_worker.compile import CORR_ID
from services.llm_worker.flight import Flights
from services.llm_worker.journal import Journal, decode
from services.llm_worker.models import ModelTable
from services.llm_worker.prices import Prices
from services.llm_worker.providers.table import ProviderTable
from services.llm_worker.registry import Registry
from services.llm_worker.replaying import Replaying
from services.llm_worker.replies import reply
from services.llm_worker.roll_call import call_the_roll
from services.llm_worker.withdrawals import Withdrawals
from services.runtime.bus import Bus, Message
from services.runtime.event_store import Recorded
from services.runtime.rpc import Caller

CANCEL_WAIT_S = 1.0
STOPPED, TOO_LATE = b"true", b"false"
"""What the worker that has a call replies to the wish that it be stopped."""
_ENCODE = msgspec.json.Encoder().encode
_TOKEN = msgspec.json.Decoder(LlmToken).decode
_CORR = msgspec.json.Decoder(CorrRef).decode


class Handlers:
    """Answers the verbs from what the other parts know.

    `held` says whether the ledger still holds what was reserved for a call; `log` is structlog's.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        models: ModelTable,
        providers: ProviderTable,
        journal: Journal,
        registry: Registry,
        flights: Flights,
        breakers: Breakers,
        replaying: Replaying,
        prices: Prices,
        withdrawals: Withdrawals,
        held: Callable[[str], bool],
        backlog: Backlog,
        log: Any,
    ) -> None:
        self._bus, self._models, self._providers = bus, models, providers
        self._journal, self._registry, self._flights = journal, registry, flights
        self._breakers, self._replaying, self._prices, self._log = breakers, replaying, prices, log
        self._withdrawals, self._held, self._backlog = withdrawals, held, backlog

    async def list_models(self, _request: Nothing, _caller: Caller) -> list[ModelView]:
        """Every model and alias, what it resolves to, and whether it can answer; others only while they are ill."""
        names = self._models.ids()
        shown = (*names, *(one for one in self._breakers.ill() if one not in names))
        return [await self._view(name) for name in shown]

    async def reset(self, request: ModelRef, caller: Caller) -> ModelView:
        """Close the breaker of a model, whoever opened it. Raises unknown_model, and nats_unavailable."""
        resolved = self._models.resolve(request.model_id)
        await self._breakers.reset(resolved.used, caller.by)
        return await self._view(request.model_id)

    async def list_workers(self, _request: Nothing, _caller: Caller) -> list[WorkerView]:
        """Workers by their beats; those that live are asked how it is now."""
        return self._registry.views(await call_the_roll(self._bus, self._registry))

    async def replay(self, request: ReplayRef, _caller: Caller) -> dict[str, Any]:
        """The journaled outcome of a call, with `paid: false`; `live` makes the call anew. Raises not_found."""
        entry = await self._answered(request)
        if request.live:
            return await self._replaying.again(entry)
        again = await self._replaying.live_replays(request.corr_id)
        return {**decode(entry.data), "paid": False, **({"live_replays": again} if again else {})}

    async def repeat(self, request: RepeatRef, _caller: Caller) -> LlmAsked:
        """Make a call anew, once for each mark, and wait for nothing. Raises not_found and bad_id."""
        return await self._replaying.ask(await self._answered(request), request.mark)

    async def _answered(self, request: ReplayRef | RepeatRef) -> Recorded:
        _check_corr(request.corr_id)
        for name, value in (("run_id", request.run_id), ("node_id", request.node_id)):
            if value is not None:
                check_id(value, name)
        entry = await self._journal.scan(request.corr_id, request.run_id, request.node_id)
        if entry is None:
            hint = f"`htdag bus history '{llm_response('*', '*')}' --last` lists the newest that are kept"
            raise Rejected("not_found", "no answer with this corr_id is kept", corr_id=request.corr_id, hint=hint)
        return entry

    async def tail(self, request: TokensRef, _caller: Caller) -> list[LlmToken]:
        """Tokens of the newest stream of a node from `from_seq` on, as far as they are still kept."""
        subject = llm_tokens(check_id(request.run_id, "run_id"), check_id(request.node_id, "node_id"))
        tokens: list[LlmToken] = []
        async for entry in self._bus.history(LLM_TOKENS, subject):
            token = _TOKEN(entry.data)
            if token.seq == 1:  # a new call, or a new try of a call whose worker died
                tokens.clear()
            tokens.append(token)
        return [token for token in tokens if token.seq >= request.from_seq]

    async def cancel(self, request: CorrRef, _caller: Caller) -> bool:
        """Stop a call on whichever worker has it, or takes it over later; true when it was under way.

        It still is when its worker has died and the ledger holds what was reserved for it, and when its request waits
        for a worker. Raises Rejected when nobody had it now and the wish cannot be kept either.
        """
        _check_corr(request.corr_id)
        stopped = await self._said(request)
        if stopped is False:
            return False
        try:
            await self._withdrawals.keep(request)  # also of a call that was stopped: its worker may die over it
        except Rejected as error:
            if stopped is None:
                raise
            self._log.warning("withdrawal_not_kept", corr_id=request.corr_id, code=error.code)
        if stopped:
            return True
        self._bus.publish(LLM_CANCEL, _ENCODE(request))  # for whoever has looked for it before it was kept
        return self._held(request.corr_id) or await self._backlog.holds(request.corr_id)

    async def _said(self, request: CorrRef) -> bool | None:
        """Whether the worker that has this call could stop it; None when nobody has it."""
        if self._flights.cancel(request.corr_id):
            return True
        try:
            told = await self._bus.request(LLM_CANCEL, _ENCODE(request), timeout_s=CANCEL_WAIT_S)
        except Rejected as error:
            if error.code not in ("timeout", "no_responders"):
                raise
            return None
        return told.data == STOPPED

    def cancel_here(self, message: Message) -> None:
        """What every worker hears; only the one that has the call replies, with whether it could stop it."""
        try:
            corr_id = _CORR(message.data).corr_id
        except msgspec.MsgspecError:
            return
        if self._flights.cancel(corr_id):
            reply(self._bus, self._log, message.reply, STOPPED)
        elif self._flights.of(corr_id) is not None:
            reply(self._bus, self._log, message.reply, TOO_LATE)

    async def _view(self, name: str) -> ModelView:
        try:
            resolved = self._models.resolve(name)
        except Rejected as error:
            return ModelView(id=name, provider="", note=error.message, available=False)
        missing = self._providers.of(resolved).missing(resolved)
        config = resolved.config
        price_in, price_out = await self._prices.per_mtok(resolved)
        return ModelView(
            id=name,
            provider=config.provider,
            resolves_to=resolved.used if resolved.used != name else "",
            note="; ".join(filter(None, (resolved.note, missing))),
            available=not missing,
            price_in_usd_per_mtok=price_in,
            price_out_usd_per_mtok=price_out,
            breaker=self._breakers.state(resolved.used),
            retry_after_ms=self._breakers.retry_after_ms(resolved.used),
            fallback=list(config.fallback),
        )


def _check_corr(corr_id: str) -> None:
    if not CORR_ID.match(corr_id):
        raise Rejected("bad_id", "corr_id is malformed", field="corr_id")
