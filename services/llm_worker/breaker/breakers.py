"""The breakers of all models, as this worker knows them: it follows what the others decide, and decides with them.

Every counted failure is a fact in the log, so that five failures are five, whichever workers they met. While a model
is well, nothing is written or asked for its calls.
"""

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from contracts.breaker import BreakerClosed, BreakerEvent, BreakerOpened, BreakerProbed
from contracts.codec import CommitCodec, Undecodable
from contracts.commit import HEADER_TYPES, Commit
from contracts.errors import Rejected
from contracts.streams import EVENTS_LLM_WORKER
from contracts.subjects import ID, events
from services.llm_worker.breaker.decider import (
    AT_ONCE,
    BREAKER,
    COUNTED,
    FORGOTTEN_AFTER_MS,
    Abandon,
    Breaker,
    BreakerCommand,
    BreakerState,
    Enter,
    Fail,
    Reset,
    Succeed,
)
from services.llm_worker.config import Config
from services.runtime.bus import Bus
from services.runtime.clock import Clock, rfc3339
from services.runtime.event_store import Conflict, Recorded
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.metrics import Metrics

CODEC: Final[CommitCodec[BreakerEvent]] = CommitCodec(BreakerEvent)
PATTERN: Final = events("llm-worker", "breaker", "*")
GAUGE: Final[dict[BreakerState, int]] = {"closed": 0, "half_open": 1, "open": 2}
MODELS_MAX: Final = 1_000
CONFLICTS_MAX: Final = 8
LEASE_MARGIN_MS: Final = 10_000
APPEND_S: Final = 5.0
"""A worker that cannot write its failures down still calls: the breaker protects, it must not block."""
_TRANSITIONS: Final = (BreakerOpened, BreakerProbed, BreakerClosed)


def aggregate_id(model: str) -> str:
    """The one token under which the breaker of a model stands."""
    if ID.match(model):
        return model
    slug = "".join(sign if ID.match(sign) else "-" for sign in model[:40])
    return f"{slug}-{hashlib.sha256(model.encode()).hexdigest()[:16]}"


class Pass(NamedTuple):
    """Leave to call a model. `probe` is not empty when the call is the one that tries."""

    model: str
    probe: str = ""


class _Known:
    __slots__ = ("breaker", "lock", "seq")

    def __init__(self, model: str) -> None:
        self.breaker = BREAKER.initial(model)
        self.seq = 0
        self.lock = asyncio.Lock()


class Breakers:
    """Lets calls through, and hears how they ended. `log` is structlog's."""

    def __init__(
        self, *, bus: Bus, config: Config, clock: Clock, metrics: Metrics, log: Any, worker_id: str
    ) -> None:  # fmt: skip
        self._bus, self._clock, self._metrics, self._log = bus, clock, metrics, log
        self._failures, self._open_ms = config.breaker_failures, int(config.breaker_open_s * 1000)
        self._worker_id = worker_id
        self._store = JetStreamEventStore(bus, EVENTS_LLM_WORKER)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._nonce, self._count = secrets.token_hex(6), 0
        self._abandoning: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Follow what all workers write, from as far back as it can still matter."""
        since = rfc3339(self._clock.now_ms() - FORGOTTEN_AFTER_MS - self._open_ms)
        first = await self._bus.first_since(EVENTS_LLM_WORKER, PATTERN, since)
        follower = await self._bus.follow(EVENTS_LLM_WORKER, PATTERN, self.take, after=first - 1 if first else None)
        if first:
            try:
                async with asyncio.timeout(APPEND_S):
                    await follower.caught_up.wait()
            except TimeoutError:
                self._log.warning("breakers_late")

    def state(self, model: str) -> BreakerState:
        """How the breaker of a model is. One whose pause is over counts as half open: the next call will try."""
        known = self._known.get(model)
        if known is None:
            return "closed"
        due = known.breaker.status == "open" and self._clock.now_ms() >= known.breaker.until_ms
        return "half_open" if due else known.breaker.status

    def retry_after_ms(self, model: str) -> int:
        """How long the breaker of a model stays open; 0 when it is not."""
        known = self._known.get(model)
        refusal = None if known is None else known.breaker.refusal(self._clock.now_ms())
        return 0 if refusal is None else int(refusal.detail["retry_after_ms"])

    def ill(self) -> list[str]:
        """The models whose breaker is not closed."""
        return [model for model, known in self._known.items() if known.breaker.status != "closed"]

    def is_well(self, model: str) -> bool:
        """Whether nothing need be asked or told of a call that goes well."""
        known = self._known.get(model)
        return known is None or (known.breaker.status == "closed" and not known.breaker.failures)

    def check(self, model: str) -> None:
        """Raise Rejected("circuit_open") when a call would not be let through; nothing is decided yet."""
        known = self._known.get(model)
        refusal = None if known is None else known.breaker.refusal(self._clock.now_ms())
        if refusal is not None:
            raise refusal

    async def admit(self, model: str, corr_id: str, timeout_ms: int) -> Pass:
        """Leave to call `model` now. Raises Rejected("circuit_open")."""
        known = self._known.get(model)
        if known is None or known.breaker.status == "closed":
            return Pass(model)
        self.check(model)
        probe = f"{self._worker_id}:{corr_id}"
        await self._decide(model, Enter(probe, timeout_ms + LEASE_MARGIN_MS, self._worker_id))
        return Pass(model, probe if known.breaker.probe == probe else "")

    async def failed(self, leave: Pass, code: str) -> None:
        """A call ended with an error."""
        if code in COUNTED or code in AT_ONCE:
            command: BreakerCommand = Fail(code, leave.probe, self._failures, self._open_ms, self._worker_id)
            await self._decide(leave.model, command)
        elif leave.probe:
            await self.succeeded(leave)  # it said no, but it spoke

    async def succeeded(self, leave: Pass) -> None:
        """A call was answered."""
        known = self._known.get(leave.model)
        if known is not None and (leave.probe or known.breaker.failures):
            await self._decide(leave.model, Succeed(leave.probe, self._worker_id))

    def abandoned(self, leave: Pass) -> None:
        """A call was stopped before it ended, or had no fair time to: that says nothing of its model."""
        if leave.probe:
            task = asyncio.create_task(self._decide(leave.model, Abandon(leave.probe, self._worker_id)))
            self._abandoning.add(task)
            task.add_done_callback(self._abandoning.discard)

    async def reset(self, model: str, by: str) -> None:
        """Let calls through again, since somebody has mended the model. Raises Rejected when the log takes nothing."""
        known = self._of(model)
        await self._catch_up(known)
        await self._decide(model, Reset(by))
        if known.breaker.status != "closed":
            raise Rejected("nats_unavailable", "the breaker's log takes nothing now")

    def take(self, record: Recorded) -> None:
        """Take in one stored commit, of whichever worker."""
        try:
            commit = CODEC.decode(record.data, skip_unknown=True)
        except Undecodable as error:
            self._log.error("breaker_unreadable", seq=record.seq, reason=str(error)[:200])
            return
        for event in commit.events:
            known = self._of(event.model)
            if record.seq < known.seq:
                return
            self._evolve(known, event)
            known.seq = record.seq

    async def _decide(self, model: str, command: BreakerCommand) -> None:
        known = self._of(model)
        try:
            async with asyncio.timeout(APPEND_S), known.lock:
                for _ in range(CONFLICTS_MAX):
                    happened = BREAKER.decide(command, known.breaker, self._clock.now_ms())
                    if not happened or await self._append(known, list(happened)):
                        return
                    await self._catch_up(known)
        except TimeoutError:
            self._log.warning("breaker_unwritable", model=model, code="timeout")
        except Rejected as error:
            if error.code == "circuit_open":
                raise
            self._log.warning("breaker_unwritable", model=model, code=error.code)

    async def _append(self, known: _Known, happened: list[BreakerEvent]) -> bool:
        before, model, now = known.breaker, known.breaker.model, rfc3339(self._clock.now_ms())
        commit = Commit(at=now, by=self._worker_id, cause=self._worker_id, corr=model, events=happened)
        self._count += 1
        try:
            seq = await self._store.append(
                self._subject(model), (CODEC.encode(commit),), expect=known.seq,
                msg_id=f"{self._nonce}-{self._count}", headers={HEADER_TYPES: CODEC.types_header(happened)},
            )  # fmt: skip
        except Conflict:
            self._metrics.inc("htdag_commits_total", stream=EVENTS_LLM_WORKER, outcome="conflict")
            return False
        self._metrics.inc("htdag_commits_total", stream=EVENTS_LLM_WORKER, outcome="stored")
        self._count_transitions(before, happened)
        if seq > known.seq:  # else the follower was faster
            for event in happened:
                self._evolve(known, event)
            known.seq = seq
        return True

    async def _catch_up(self, known: _Known) -> None:
        """Somebody else was first: each commit tells the whole state, so the newest one is enough."""
        newest = await self._store.last(self._subject(known.breaker.model))
        if newest is not None and newest.seq > known.seq:
            self.take(newest)

    def _evolve(self, known: _Known, event: BreakerEvent) -> None:
        before = known.breaker.status
        known.breaker = BREAKER.evolve(known.breaker, event)
        now = known.breaker.status
        self._metrics.set("htdag_llm_breaker_state", GAUGE[now], model=event.model)
        if now != before and isinstance(event, _TRANSITIONS):
            self._log.info("breaker", model=event.model, was=before, now=now, by=event.worker)

    def _count_transitions(self, breaker: Breaker, happened: list[BreakerEvent]) -> None:
        """By whoever wrote them, and nobody else: the sum over all workers is what the log holds."""
        for event in happened:
            was, breaker = breaker.status, BREAKER.evolve(breaker, event)
            if breaker.status != was and isinstance(event, _TRANSITIONS):
                self._metrics.inc("htdag_llm_breaker_transitions_total", model=event.model, to=breaker.status)

    def _subject(self, model: str) -> str:
        return events("llm-worker", "breaker", aggregate_id(model))

    def _of(self, model: str) -> _Known:
        known = self._known.get(model)
        if known is None:
            if len(self._known) >= MODELS_MAX:
                self._forget_one()
            known = self._known[model] = _Known(model)
        return known

    def _forget_one(self) -> None:
        """Names of models can be made up without end. Those that are closed go first; the log knows all of them."""
        resting = [(model, known) for model, known in self._known.items() if not known.lock.locked()]
        resting.sort(key=lambda one: one[1].breaker.status != "closed")
        if resting:
            del self._known[resting[0][0]]
