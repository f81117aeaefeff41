"""One call at a provider: a place, a deadline, tokens while they come, the answer or the error at the end."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from contracts.errors import Rejected
from contracts.llm import LlmAnswer, LlmError
from services.llm_worker import genai
from services.llm_worker.admission import Admission
from services.llm_worker.billing import SLACK_TOKENS, Bill, Biller, all_of
from services.llm_worker.breaker.breakers import Breakers, Pass
from services.llm_worker.breaker.fair_time import CallersDeadline, says_nothing
from services.llm_worker.cache import Cache
from services.llm_worker.config import Config
from services.llm_worker.fallback import Fallbacks
from services.llm_worker.flight import Flight
from services.llm_worker.judging.judge import Judge
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.listening import Heard, TokenStream
from services.llm_worker.load import Load
from services.llm_worker.outcomes import answered, failed
from services.llm_worker.patience import acquire, patience_s, reserved_until_s
from services.llm_worker.prices import Prices, longest_answer
from services.llm_worker.providers.bounds import OVERRAN, of_output
from services.llm_worker.providers.protocol import CALL_AGAIN, Call
from services.llm_worker.providers.table import ProviderTable
from services.llm_worker.retrying import asked_again
from services.llm_worker.second_asking import NotAsked, SecondAsking
from services.llm_worker.unjudged import Unjudged
from services.llm_worker.verdicts import Verdicts
from services.runtime import faults
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.metrics import Metrics

TOKENS_END_S: Final = 2.0
"""So long the answer waits for its last token to be stored; tokens are for watching, the answer is paid."""


class Caller:
    """Carries calls out. `bus` takes the tokens."""

    def __init__(
        self,
        *,
        bus: Bus,
        providers: ProviderTable,
        prices: Prices,
        breakers: Breakers,
        fallbacks: Fallbacks,
        cache: Cache,
        config: Config,
        clock: Clock,
        metrics: Metrics,
        log: Any,
        cashier: Cashier,
        judge: Judge,
        second: SecondAsking,
        unjudged: Unjudged,
    ) -> None:
        self.second = second
        self._bus, self._providers, self._cashier = bus, providers, cashier
        self._verdicts = Verdicts(judge=judge, cashier=cashier, unjudged=unjudged, bus=bus, clock=clock, log=log)
        self._breakers, self._fallbacks, self._cache = breakers, fallbacks, cache
        self._config, self._clock, self._metrics, self._log = config, clock, metrics, log
        self._places = asyncio.Semaphore(config.in_flight_max)
        self.load, self.admission = Load(clock=clock, metrics=metrics), Admission(config, clock)
        self._biller = Biller(prices, metrics, log)

    async def answer(self, flight: Flight) -> LlmAnswer | LlmError:
        """The outcome of one call, whatever it is. Only the end of this worker leaves it without one.

        Raises NotAsked when another worker has made it, or is to.
        """
        began_s = self._clock.monotonic_s()
        tokens = TokenStream(self._bus, flight, self._on_token(flight)) if flight.request.params.stream else None
        flight.phase = "calling"
        answer: LlmAnswer | LlmError
        try:
            heard = await self._heard_before(flight, tokens)
            if flight.cancelled:
                raise Rejected("cancelled")
            answer = await self._judged(flight, heard or await self._recorded_or_asked(flight, tokens))
        except Rejected as error:
            answer = failed(flight, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not (flight.cancelled or flight.answered):
                raise
            task.uncancel()
            if flight.answered is not None:
                raise NotAsked(flight.answered) from None
            answer = failed(flight, Rejected("cancelled"))
        flight.phase = "answered"
        if tokens is not None:
            await self._end(tokens)
        flight.took_s = self._clock.monotonic_s() - began_s
        faults.point("llm_worker.after_answer")
        return answer

    async def _recorded_or_asked(self, flight: Flight, tokens: TokenStream | None) -> LlmAnswer:
        request, asked = flight.request, flight.resolved
        if request.params.response_schema is not None:
            with self.admission.aside():
                await self._verdicts.of_schema(flight, request.params.response_schema)
        if request.params.cache:
            recorded = await self._cache.find(request, asked)
            if recorded is not None:
                if tokens is not None:
                    tokens.put(recorded.output)
                self._metrics.inc("htdag_llm_cached_total", model=asked.shown)
                return recorded
        return await self._fallbacks.ask(
            flight, lambda: _has_spoken(flight, tokens), lambda: self._in_turn(flight, tokens)
        )

    async def _heard_before(self, flight: Flight, tokens: TokenStream | None) -> LlmAnswer | None:
        if flight.heard is None:
            return None
        answer = await self._verdicts.heard_before(flight, flight.heard)
        flight.resolved = self._fallbacks.that_answered(flight.resolved, answer.model_used)
        if tokens is not None:  # whoever watches sees all of it, also where the first stream broke off
            tokens.put(answer.output)
        return answer

    async def _judged(self, flight: Flight, answer: LlmAnswer) -> LlmAnswer:
        """The answer, if it is what was asked for; what is recorded was judged when it was new."""
        params = flight.request.params
        if answer.cached:
            return answer
        if params.response_schema is not None and not answer.tool_calls:
            with self.admission.over(flight.asked_of):
                answer = await self._verdicts.of_answer(flight, params.response_schema, answer)
        if params.cache and flight.resolved is flight.asked_of:
            await self._cache.keep(flight.request, flight.resolved)
        return answer

    def full(self, flight: Flight) -> bool:
        """Whether a call would wait here for too long: for its model, or to be judged."""
        return self.admission.full(flight.resolved) or self._verdicts.full(flight)

    def hurry(self) -> None:
        """This worker stops soon: what is paid becomes an outcome before that."""
        self._verdicts.hurry()

    async def _end(self, tokens: TokenStream) -> None:
        try:
            async with asyncio.timeout(TOKENS_END_S):
                await tokens.end()
        except TimeoutError:
            self._log.warning("tokens_not_ended", code="timeout")
        except Rejected as error:
            self._log.warning("tokens_not_ended", code=error.code)
        except Exception:  # tokens are for watching
            self._log.exception("tokens_not_ended", code="internal")

    async def _in_turn(self, flight: Flight, tokens: TokenStream | None) -> LlmAnswer:
        """Wait for a place here and at the model, then call. The timeout of the request counts from there."""
        self._breakers.check(flight.resolved.used)
        slots = self._providers.slots_of(flight.resolved)
        wait_s = patience_s(flight, self._config.queue_timeout_s, self._clock.now_ms())
        end_s = asyncio.get_running_loop().time() + wait_s
        held: list[asyncio.Semaphore] = []
        try:
            if slots is not None:
                with self.admission.aside():
                    await self._take_place(flight, slots, held, end_s, wait_s)
            alone = not self._cashier.limits_of(flight.resolved).lifted
            if alone:  # what one model's limit puts off keeps no place from the others
                with self.admission.aside():
                    await self._reserve(flight, end_s)
            await self._take_place(flight, self._places, held, end_s, wait_s)
            with self.admission.at_work(flight.resolved):
                if flight.expired(self._clock.now_ms()):
                    raise Rejected("provider_overloaded", "no place became free before whoever asked gave up")
                if not alone:
                    await self._reserve(flight, end_s)
                return await self._guarded(flight, tokens)
        finally:
            for places in held:
                places.release()

    async def _reserve(self, flight: Flight, end_s: float) -> None:
        until_s = reserved_until_s(flight, end_s, self._clock.now_ms())
        await self._cashier.reserve(flight, until_s)
        await self.second.look(flight, until_s)

    async def _take_place(
        self, flight: Flight, places: asyncio.Semaphore, held: list[asyncio.Semaphore], end_s: float, wait_s: float
    ) -> None:
        waits = places.locked()
        if waits:
            self.load.begin(flight.key.corr_id)
        try:
            await acquire(places, end_s, wait_s)
            held.append(places)
        finally:
            if waits:
                provider, model = flight.resolved.config.provider, flight.resolved.shown
                self.load.end(flight.key.corr_id, provider, model)

    async def _guarded(self, flight: Flight, tokens: TokenStream | None) -> LlmAnswer:
        """Call if the breaker of the model lets it through, and tell it how that ended."""
        model = flight.resolved.used
        if self._breakers.is_well(model):
            leave = Pass(model)
        else:
            leave = await self._breakers.admit(model, flight.key.corr_id, flight.request.params.timeout_ms)
        try:
            answer = await self._tries(flight, tokens, not leave.probe)
        except Rejected as error:
            if says_nothing(error, self._config, flight.resolved.config):
                self._breakers.abandoned(leave)
            else:
                await self._breakers.failed(leave, error.code)
            raise
        except asyncio.CancelledError:
            self._breakers.abandoned(leave)
            raise
        if answer.disputed is not None and answer.disputed.tokens > SLACK_TOKENS:
            await self._breakers.failed(leave, OVERRAN)
        elif not self._breakers.is_well(model):
            await self._breakers.succeeded(leave)
        return answer

    async def _tries(self, flight: Flight, tokens: TokenStream | None, may_again: bool) -> LlmAnswer:
        end_s = asyncio.get_running_loop().time() + flight.request.params.timeout_ms / 1000

        def may(error: Rejected) -> bool:
            # What was said is paid and seen, and cannot be taken back; a run decides for itself.
            return error.code in CALL_AGAIN and not flight.for_run and not _has_spoken(flight, tokens)

        async def again() -> LlmAnswer:
            self._metrics.inc(
                "htdag_llm_retries_total", provider=flight.resolved.config.provider, model=flight.resolved.shown
            )
            return await self._once(flight, tokens)

        try:
            async with asyncio.timeout_at(end_s):
                try:
                    return await self._once(flight, tokens)
                except Rejected as error:
                    if not may_again or not may(error):
                        raise
                    return await asked_again(error, may, again, end_s)
        except TimeoutError:
            raise CallersDeadline(flight.request.params.timeout_ms) from None

    async def _once(self, flight: Flight, tokens: TokenStream | None) -> LlmAnswer:
        faults.point("llm_worker.before_provider")
        request, resolved = flight.request, flight.resolved
        missing = self._providers.of(resolved).missing(resolved)
        if missing and resolved.config.provider != "embedded":  # the embedded one knows better what is missing
            raise Rejected("provider_missing", detail=missing)
        began_s = self._clock.monotonic_s()
        allowance = None if resolved.config.provider == "mock" else of_output(self._call_of(flight))  # ours is bounded
        heard = Heard(tokens, request.input.messages, allowance)
        model = resolved.shown
        headers = flight.waiters[0].delivery.headers
        with genai.inference(
            request=request,
            resolved=resolved,
            model=model,
            max_tokens=request.params.max_tokens,
            headers=headers,
            clock=self._clock,
            metrics=self._metrics,
            cut=lambda: "cancelled" if flight.cancelled or flight.answered is not None else "timeout",
        ) as told:
            heard.on_chunk = told.chunk
            try:
                await self._listen(flight, heard)
                bill = await self._biller.bill(flight, heard)
            except BaseException as error:
                await self._used_in_vain(flight, heard, error)
                self._tell_used(flight, told)
                raise
            # Whatever happens from here on: it is paid.
            self._note(flight, bill)
            faults.point("llm_worker.after_provider")
            self._tell_used(flight, told)
            try:
                told.answered(heard.reason, heard.model)
            except Exception:
                self._log.exception("call_not_told", corr_id=flight.key.corr_id)
        return answered(flight, heard, bill, round((self._clock.monotonic_s() - began_s) * 1000, 3))

    async def _used_in_vain(self, flight: Flight, heard: Heard, error: BaseException) -> None:
        """Note what a call used that did not come to its end; nothing when its provider had not begun to answer."""
        if error_is(error, OVERRAN):
            # Nobody knows how much it would have said, and whether it counts that: it had all that was reserved.
            heard.used = all_of(flight)
        if heard.begun:
            try:
                bill = await self._biller.bill(flight, heard)
            except Exception:
                bill = Bill(all_of(flight), True, None)  # what it cost nobody knows: then it is what was held for it
            self._note(flight, bill)
            flight.used_guessed = flight.used_guessed or error_is(error, OVERRAN)

    def _tell_used(self, flight: Flight, told: genai.Inference) -> None:
        """Tell the span what is paid for this call, however it ended; not being able to must not cost its outcome."""
        if flight.used is None:
            return
        try:
            told.used(flight.used, estimated=flight.used_guessed)
        except Exception:
            self._log.exception("call_not_told", corr_id=flight.key.corr_id)

    def _note(self, flight: Flight, bill: Bill) -> None:
        flight.used = bill.used._replace(cost_usd_micros=bill.cost_usd_micros)
        flight.used_guessed = bill.guessed

    def _call_of(self, flight: Flight) -> Call:
        return Call(flight.request, flight.resolved, longest_answer(flight.request, flight.resolved))

    async def _listen(self, flight: Flight, heard: Heard) -> None:
        resolved = flight.resolved
        stream = self._providers.of(resolved).stream(self._call_of(flight))
        flight.asked = True
        try:
            with self.load.at_provider():
                async for piece in stream:
                    heard.take(piece)
        except Rejected:
            raise
        except Exception as error:  # the edge to foreign code: whatever it raises is an outcome of this call only
            self._log.exception("provider_broke", model=resolved.used)
            raise Rejected("internal", "the provider's adapter broke", kind=type(error).__name__) from error
        finally:
            await stream.aclose()

    def _on_token(self, flight: Flight) -> Callable[[bool], None]:
        model = flight.resolved.shown
        names = ("htdag_llm_tokens_dropped_total", "htdag_llm_tokens_streamed_total")
        return lambda sent: self._metrics.inc(names[sent], model=model)

    def counted(self, flight: Flight, answer: LlmAnswer | LlmError) -> None:
        """Count an outcome, after it is journaled: a number that cannot be counted must not cost an answer."""
        if flight.took_s is None:
            return  # no call was made
        try:
            self._count(flight, answer, flight.took_s)
        except Exception:
            self._log.exception("call_not_counted", corr_id=flight.key.corr_id)

    def _count(self, flight: Flight, answer: LlmAnswer | LlmError, took_s: float) -> None:
        provider, model, count = flight.resolved.config.provider, flight.resolved.shown, self._metrics.inc
        self._metrics.observe("htdag_llm_seconds", took_s, provider=provider, model=model)
        if isinstance(answer, LlmError):
            code = str(answer.error["code"])
            count("htdag_llm_requests_total", provider=provider, model=model, outcome=code)
            return
        count("htdag_llm_requests_total", provider=provider, model=model, outcome="ok")


def error_is(error: BaseException, code: str) -> bool:
    """Whether this is a refusal under `code`."""
    return isinstance(error, Rejected) and error.code == code


def _has_spoken(flight: Flight, tokens: TokenStream | None) -> bool:
    """Whether the provider had begun to answer when the call failed."""
    return flight.used is not None or (tokens is not None and tokens.seq > 0)
