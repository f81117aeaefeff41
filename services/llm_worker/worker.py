"""Answers journaled requests: look whether it was paid, call, journal the answer, hand it over, acknowledge.

In this order, so that a death at any point costs at most a repetition of what is free: the request comes again, finds
its answer in the journal, and only the handing over is repeated.
"""

import asyncio
from typing import Any, Final

import msgspec

from contracts.errors import Rejected, failure
from contracts.llm import LlmAnswer, LlmError, LlmInput, LlmRequest
from contracts.streams import CONSUMERS, LLM_REQUESTS, LLM_RESPONSES, ConsumerSpec
from contracts.subjects import ID, model_of
from services.llm_worker import admission
from services.llm_worker import compile as compiler
from services.llm_worker.big_answers import HEADROOM_BYTES, slim
from services.llm_worker.calling import Caller
from services.llm_worker.claims import Claims
from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.flight import Flight, Flights, Waiter
from services.llm_worker.journal import Journal, Key, settles, settles_itself
from services.llm_worker.ledger.cashier import Cashier, Closing
from services.llm_worker.models import Resolved
from services.llm_worker.outcomes import unkept
from services.llm_worker.recorder import Recorder
from services.llm_worker.redelivery import LATER_S, REQUESTS, Redelivery
from services.llm_worker.replies import reply
from services.llm_worker.resolving import Resolver
from services.llm_worker.second_asking import NotAsked
from services.llm_worker.settling import Settling
from services.llm_worker.unjudged import KeptAnswer
from services.llm_worker.withdrawals import Withdrawals
from services.runtime import faults
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.event_store import Recorded
from services.runtime.ids import Ids
from services.runtime.metrics import Metrics
from services.runtime.pull import Delivery, Puller

CONSUMER: Final[ConsumerSpec] = next(spec for spec in CONSUMERS if spec.stream == LLM_REQUESTS)
IN_PROGRESS_S: Final = 3.0
LOOK_UP_MAX: Final = 256
CUT_S: Final = 2.0
NO_ROOM_S: Final = 5.0
ELSEWHERE_S: Final = 5.0
NO_REQUEST: Final = LlmRequest(LlmInput([]))
NO_MODEL: Final = ModelConfig(provider="mock")
_ENCODE: Final = msgspec.json.Encoder().encode


class Worker:
    """One of the pool. `log` is structlog's."""

    def __init__(
        self,
        *,
        bus: Bus,
        journal: Journal,
        caller: Caller,
        resolver: Resolver,
        config: Config,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        log: Any,
        worker_id: str,
        cashier: Cashier,
    ) -> None:
        self._cashier = cashier
        self._bus, self._journal, self._caller, self._resolver = bus, journal, caller, resolver
        self._config, self._clock, self._ids, self._metrics, self._log = config, clock, ids, metrics, log
        self.flights = Flights()
        self._claims = Claims(bus=bus, flights=self.flights, worker_id=worker_id, log=log)
        self.withdrawals = Withdrawals(bus=bus, flights=self.flights, claims=self._claims, log=log)
        self._recorder = Recorder(bus=bus, journal=journal, log=log)
        self._admission = caller.admission
        caller.second.watch(self.flights)
        self._redelivery = Redelivery(
            bus=bus, metrics=metrics, log=log, flights=self.flights, claims=self._claims, cashier=cashier,
            spawn=self._spawn,
        )  # fmt: skip
        self._settling = Settling(bus, log, self._broken)
        self._arrived: list[Delivery] = []
        self._looking: asyncio.Task[None] | None = None
        self._handing: set[asyncio.Future[Any]] = set()
        self._puller: Puller | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to pull."""
        await self._claims.start()
        self._puller = await self._bus.pull(CONSUMER, self.take, credit=self._admission.credit)
        self._admission.changed = self._puller.more

    async def keep_alive(self) -> None:
        """Tell the broker every 3 s that what is under way is not dead."""
        while True:
            await asyncio.sleep(IN_PROGRESS_S)
            for flight in self.flights.all():
                for waiter in flight.waiters:
                    waiter.delivery.in_progress()

    async def retire(self, within_s: float) -> None:
        """Take no more; what is under way here goes on for as long as it takes."""
        if self._puller is not None:
            await self._puller.drain(within_s)

    async def drain(self, within_s: float) -> None:
        """Take no more, finish what is under way; what is not done by then goes back to the others at once."""
        hurrying = asyncio.get_running_loop().call_later(max(0.0, within_s - CUT_S), self._caller.hurry)
        try:
            async with asyncio.timeout(within_s):
                if self._puller is not None:
                    await self._puller.drain(within_s)
                if self._looking is not None:
                    await asyncio.wait([self._looking])
                await self.flights.wait_empty()
                if self._handing:
                    await asyncio.wait(self._handing)
        except TimeoutError:
            left = self.flights.all()
            self._log.warning("drain_cut", requests=len(left), hint="they are delivered to another worker")
            tasks = [flight.task for flight in left if flight.task is not None]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=CUT_S)
            for flight in self.flights.all():  # cut before they began
                self._redelivery.give_back(flight, 0.0)
            if self._handing:  # what is given back is free of its reservation first
                await asyncio.wait(self._handing, timeout=CUT_S)
        finally:
            hurrying.cancel()

    # -- taking in -------------------------------------------------------------------------------------------------

    def take(self, delivery: Delivery) -> None:
        """One request of the queue. What arrives while a look-up is under way is looked up together."""
        self._arrived.append(delivery)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_up(), name="llm-look-up")

    async def _look_up(self) -> None:
        try:
            while self._arrived:
                batch, self._arrived = self._arrived[:LOOK_UP_MAX], self._arrived[LOOK_UP_MAX:]
                flights = [flight for flight in map(self._checked, batch) if flight is not None]
                if flights:
                    await self._begin(flights)
        finally:
            self._looking = None

    def _checked(self, delivery: Delivery) -> Flight | None:
        try:
            return self._accept(delivery)
        except Exception:  # one request that breaks us must not stop the others
            self._log.exception("request_broke", seq=delivery.seq, delivered=delivery.delivered)
            self._redelivery.later(delivery)
            return None

    def _accept(self, delivery: Delivery) -> Flight | None:
        """The call a request asks for; None when it is refused or already under way here."""
        model_id = model_of(delivery.subject, REQUESTS)
        try:
            request = compiler.compile_request(
                delivery.data,
                subject_model=model_id,
                new_id=self._ids.new,
                bytes_max=self._bus.payload_max,
                message_id=delivery.headers.get("Nats-Msg-Id", ""),
            )
            resolved = self._resolver.resolve(request)
        except Rejected as error:
            self._refuse(delivery, error, model_id)
            return None
        waiter = self._recorder.waiter(delivery, request.run_id)
        under_way = self.flights.of(request.corr_id)
        if under_way is not None:
            under_way.waiters.append(waiter)
            return None
        flight = Flight(Key(request.run_id, request.node_id, request.corr_id), request, resolved, waiter)
        self.flights.add(flight)
        return flight

    async def _begin(self, flights: list[Flight]) -> None:
        """Answer from the journal what is there, judge what was heard, call for the rest."""
        try:
            paid = await self._journal.find_many([flight.key for flight in flights])
            heard, unknown = await self._caller.second.heard(flights)
        except Exception as error:  # mostly a Rejected: the broker is away
            self._log.warning("journal_unreadable", reason=str(error), requests=len(flights))
            for flight in flights:
                self._redelivery.give_back(flight, LATER_S)
            return
        for flight in flights:
            try:
                if not self._is_paid(flight, paid.get(flight.key)):
                    self._begin_one(flight, heard.get(flight.key), known=flight not in unknown)
            except Exception:  # one request that breaks us must not stop the others
                self._broken(flight)

    def _begin_one(self, flight: Flight, heard: KeptAnswer | None, *, known: bool) -> None:
        flight.heard = heard
        if not known:
            self._redelivery.give_back(flight, LATER_S)
        elif heard is None and flight.expired(self._clock.now_ms()):
            self._start(flight, failure("timeout", "whoever asked has given up; the call was not begun"))
        elif self._bus.stopped_now(LLM_RESPONSES) and not flight.cancelled:
            # Its answer could not be kept: it is not paid for now.
            self._recorder.tell_full(flight, "the broker has no room to keep an answer; the call waits")
            self._redelivery.give_back(flight, NO_ROOM_S)
        elif heard is None and self._caller.full(flight) and not flight.cancelled:
            self._put_off(flight)
        else:
            self._start(flight)

    def _is_paid(self, flight: Flight, entry: Recorded | None) -> bool:
        """Hand over what the journal holds for this call, if it holds its answer."""
        if entry is None or not settles(entry, flight.request_seq):
            return False
        self._metrics.inc("htdag_llm_reused_total", model=flight.resolved.config.provider)
        if flight.waiters[0].delivery.delivered == 1:  # not the same request, come again after a worker's death
            self._cashier.reused(flight.key.corr_id)
        self._hand_over(flight, entry.data, self._cashier.close_journaled(flight, entry))
        return True

    def _put_off(self, flight: Flight) -> None:
        """Too many wait for the same here: back to the broker for a while, so that others have room."""
        delivered = max(waiter.delivery.delivered for waiter in flight.waiters)
        delay_s = admission.delay_s(delivered)
        patient = admission.waited_s(delivered) + delay_s <= self._config.queue_timeout_s
        if patient and not flight.expired(self._clock.now_ms() + int(delay_s * 1000)):
            self._redelivery.give_back(flight, delay_s)
        else:
            self._start(flight, failure("provider_overloaded", "too many requests wait for the model"))

    def _start(self, flight: Flight, error: dict[str, Any] | None = None) -> None:
        """Call, or answer with an error that is certain already."""
        answer = None if error is None else flight.error(error)
        if answer is None:
            self._admission.enter(flight.resolved)  # now, so that the next one of the same batch sees it
        flight.task = asyncio.create_task(self._work(flight, answer), name="llm-call")

    def _refuse(self, delivery: Delivery, error: Rejected, model_id: str) -> None:
        """A stored request that cannot be called is answered in the journal; put aside when its ids do not allow it."""
        answer = compiler.refusal(delivery.data, error, model_id=model_id)
        corr_id = answer.corr_id or delivery.headers.get("Nats-Msg-Id", "")
        if not (compiler.CORR_ID.match(corr_id) and ID.match(answer.run_id) and ID.match(answer.node_id)):
            self._redelivery.put_aside(delivery, error, answer)
            return
        key = Key(answer.run_id, answer.node_id, corr_id)
        answer = LlmError(*key, model_id, answer.error, answer.attempt)
        waiter = Waiter.of(delivery, key.run_id)
        if self.flights.of(corr_id) is not None:
            # The call of this id is under way: its answer alone belongs into the journal and to the run.
            reply(self._bus, self._log, waiter.reply, _ENCODE(answer))
            delivery.ack()
            return
        flight = Flight(key, NO_REQUEST, Resolved(model_id, "", NO_MODEL), waiter)
        self.flights.add_apart(flight)
        flight.task = asyncio.create_task(self._work(flight, answer), name="llm-refusal")

    # -- calling and handing over ----------------------------------------------------------------------------------

    async def _work(self, flight: Flight, answer: LlmAnswer | LlmError | None = None) -> None:
        """Call unless the answer is certain, and see it through. However it ends, the flight ends with it."""
        try:
            if answer is None:
                answer = await self._called(flight)
            if answer is not None:
                await self._record(flight, answer)
        except asyncio.CancelledError:
            # The worker ends: an interruption is no outcome, somebody else takes the request at once.
            self._redelivery.give_back(flight, 0.0)
            raise
        except Exception:  # the edge of one call: the others go on
            if not await self._ended_by_us(flight, answer):
                self._broken(flight)

    async def _ended_by_us(self, flight: Flight, answer: LlmAnswer | LlmError | None) -> bool:
        """See a call through whose provider was asked: whatever broke us, it must not be asked again.

        Its answer is recorded once more, and if that breaks too, the error instead of it. False when the request may be
        delivered again: nobody was asked, or the journal has the outcome already.
        """
        if not flight.asked or flight.kept:
            return False
        self._log.exception("answer_broke", corr_id=flight.key.corr_id)
        outcomes = [] if answer is None else [answer]
        for outcome in (*outcomes, unkept(flight, answer, Rejected("internal"))):
            try:
                await self._record(flight, outcome)
            except Exception:
                self._log.exception("answer_broke", corr_id=flight.key.corr_id)
                if flight.kept:
                    return False
            else:
                return True
        return False

    async def _called(self, flight: Flight) -> LlmAnswer | LlmError | None:
        """The outcome of the call; None when it turned out to be somebody else's, or paid already."""
        asked = flight.resolved
        try:
            if self._claims.in_doubt(flight.waiters[0].delivery) and not await self._is_ours(flight):
                return None
            await self.withdrawals.look(flight)
            return await self._caller.answer(flight)
        except NotAsked as error:
            if not self._is_paid(flight, error.entry):
                self._redelivery.give_back(flight, LATER_S)
            return None
        finally:
            self._admission.leave(asked)

    async def _is_ours(self, flight: Flight) -> bool:
        """Ask the others first, then the journal: who ended the call in between has written it there."""
        try:
            elsewhere = await self._claims.elsewhere(flight)
            entry = None if elsewhere else await self._journal.find(flight.key)
        except Rejected as error:
            self._log.warning("claim_unknown", code=error.code, corr_id=flight.key.corr_id)
            self._redelivery.give_back(flight, LATER_S)
            return False
        if elsewhere:
            self._log.info("call_elsewhere", corr_id=flight.key.corr_id)
            self._redelivery.give_back(flight, ELSEWHERE_S)
            return False
        return not self._is_paid(flight, entry)

    async def _record(self, flight: Flight, answer: LlmAnswer | LlmError) -> None:
        """Journal the answer until it is there; only then does anybody see it."""
        if isinstance(answer, LlmAnswer):
            answer = await slim(self._bus, self._clock, self._log, answer)
        data = b""

        async def told(*, cut: bool = False) -> bytes:
            nonlocal data
            data = _ENCODE(await self._cashier.told(flight, answer))
            if not cut and len(data) > self._bus.payload_max - HEADROOM_BYTES:
                raise Rejected("too_large", "the answer is larger than the broker carries", bytes=len(data))
            return data

        try:
            stored = await self._recorder.keep(flight, answer, told)
        except Rejected as error:
            if error.code != "too_large":
                raise
            answer = unkept(flight, answer, error)
            stored = await self._recorder.keep(flight, answer, lambda: told(cut=True))
        flight.kept = True
        self._caller.counted(flight, answer)
        faults.point("llm_worker.after_journal")
        entry = await self._journal.find(flight.key) if stored.duplicate else None
        if entry is not None and settles_itself(entry, flight.request_seq):
            # Another worker was first: its answer is the one that everybody gets, and the one that is paid.
            self._hand_over(flight, entry.data, self._cashier.close_journaled(flight, entry))
            return
        self._hand_over(flight, data if entry is None else entry.data, self._cashier.close(flight, answer))

    def _hand_over(self, flight: Flight, data: bytes, closing: Closing | None) -> None:
        """Give the journaled bytes to everybody who waits; acknowledge when the ledger has it, too."""
        self.flights.remove(flight)
        for waiter in flight.waiters:
            reply(self._bus, self._log, waiter.reply, data)
        faults.point("llm_worker.after_reply")
        mailboxes = {waiter.answer_to for waiter in flight.waiters if waiter.answer_to}
        if mailboxes:
            telling = self._spawn(self._settling.tell_run(flight, mailboxes.pop(), data, closing))
            self._admission.settling(len(flight.waiters), telling)
        elif closing is not None:
            self._settling.when(flight, closing)
            self._admission.settling(len(flight.waiters), closing)
            self._handing.add(closing)
            closing.add_done_callback(self._handing.discard)
        else:
            self._settling.now(flight)

    def _broken(self, flight: Flight) -> None:
        """Called where an exception ended a flight that we know no better end for."""
        self._log.exception("call_failed", corr_id=flight.key.corr_id)
        if flight.asked and not flight.kept:
            self._cashier.lost(flight)
        self.flights.remove(flight)
        for waiter in flight.waiters:
            self._redelivery.later(waiter.delivery)

    def _spawn(self, coro: Any) -> "asyncio.Future[Any]":
        task: asyncio.Future[Any] = asyncio.create_task(coro)
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)
        return task
