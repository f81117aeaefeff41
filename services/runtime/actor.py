"""Actors: one aggregate, one mailbox, one writer; what waits together is decided and committed together.

A turn takes everything that waits, judges one command after the other, lets follow what follows (`advance`), appends
ONE commit, and only when that is acknowledged starts the effects and answers. An input from a durable source is
settled when the actor is quiet: nothing waits, no effect runs in this process, and its durable timer is armed. So an
input that is not settled is the outbox: if the process dies, it comes again, the state is folded from the log, and
`recover` starts what was still open. Losing a race against another writer means: fold again, decide again.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from contracts import subjects
from contracts.codec import CommitCodec, Undecodable, UnknownType
from contracts.commit import HEADER_SUMMARY, HEADER_TYPES, Commit
from contracts.errors import Rejected
from services.runtime import faults
from services.runtime.clock import Clock, rfc3339
from services.runtime.decider import Decider
from services.runtime.effects import EffectRunner, NoEffects
from services.runtime.event_store import Conflict, EventStore
from services.runtime.ids import Ids
from services.runtime.mailbox import Actor, Answered, Input, Interrupted, Outcome, Settled
from services.runtime.snapshots import Snapshots

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E")

HEADERS_BYTES: Final = 8192
"""Room kept free in a message for its headers."""
GIVE_UP_RETRY_MS: Final = 5_000
WAKE_MAX_S: Final = 3_600.0
_ENCODE: Final = msgspec.json.Encoder().encode


class Timers(Protocol):
    """Durable timers, one per actor."""

    async def arm(self, actor_id: str, at_ms: int) -> None:
        """Deliver the actor's time command at `at_ms`, replacing an earlier wish."""
        ...

    async def disarm(self, actor_id: str) -> None:
        """Forget the actor's timer."""
        ...


class Observer(Protocol):
    """Where the host reports what it sees."""

    def committed(self, types: Sequence[str], seconds: float) -> None:
        """A commit with these event types was acknowledged."""
        ...

    def conflict(self) -> None:
        """A race was lost."""
        ...

    def failed(self, actor_id: str, error: BaseException) -> None:
        """A turn broke: a bug, or a log that cannot be read."""
        ...


class _Silent:
    def committed(self, types: Sequence[str], seconds: float) -> None: ...
    def conflict(self) -> None: ...
    def failed(self, actor_id: str, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Bounds of one host."""

    mailbox_messages_max: int = 20_000
    actors_max: int = 20_000
    idle_s: float = 30.0
    conflicts_max: int = 20
    commit_bytes_max: int = (1 << 20) - HEADERS_BYTES
    snapshot_every_events: int = 20_000


class ActorHost(Generic[C, S, E]):
    """All actors of one aggregate in this process."""

    def __init__(
        self,
        *,
        service: str,
        aggregate: str,
        decider: Decider[C, S, E],
        codec: CommitCodec[E],
        store: EventStore,
        clock: Clock,
        ids: Ids,
        effects: EffectRunner[C] | None = None,
        timers: Timers | None = None,
        snapshots: Snapshots[S] | None = None,
        observer: Observer | None = None,
        limits: HostLimits | None = None,
    ) -> None:
        self.service, self.aggregate = service, aggregate
        self._decider, self._codec, self._store = decider, codec, store
        self._clock, self._ids = clock, ids
        self._effects: EffectRunner[C] = effects if effects is not None else NoEffects()
        self._timers, self._snapshots = timers, snapshots
        self._observer: Observer = observer if observer is not None else _Silent()
        self._limits = limits if limits is not None else HostLimits()
        self._actors: dict[str, Actor[C, S, E]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        # Two writers that race must never share a message id, or the broker would take one for the other.
        self._nonce = secrets.token_hex(6)
        self._commits = 0

    # -- the three ways in -----------------------------------------------------------------------------------------

    async def ask(
        self, actor_id: str, command: C, *, message_id: str | None = None, by: str = "", corr: str = ""
    ) -> Outcome[S, E]:
        """Send a command and wait until its commit is acknowledged. Raises Rejected when it is refused."""
        answer: asyncio.Future[Outcome[S, E]] = asyncio.get_running_loop().create_future()

        def answered(outcome: Outcome[S, E] | Rejected) -> None:
            if answer.done():
                return
            if isinstance(outcome, Rejected):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        self.deliver(actor_id, command, message_id=message_id or self._ids.new(), by=by, corr=corr, answered=answered)
        return await answer

    def deliver(
        self,
        actor_id: str,
        command: C,
        *,
        message_id: str,
        by: str = "",
        corr: str = "",
        trace: str = "",
        settled: Settled | None = None,
        answered: Answered[S, E] | None = None,
    ) -> None:
        """Put a command into a mailbox; see the module for when `settled` is called, with None or with why not."""
        item = Input[C, S, E](command, message_id, by, corr, trace, settled, answered)
        actor = self._actor(actor_id)
        if self._draining:
            _refuse(item, Interrupted(), Rejected("mailbox_full", "the service is stopping"))
        elif len(actor.box) >= self._limits.mailbox_messages_max:
            refused = Rejected("mailbox_full", actor=actor_id)
            _refuse(item, refused, refused)
        else:
            self._put(actor, item)

    async def read(self, actor_id: str) -> tuple[S, int]:
        """State and last sequence, as the log has it now; from memory when the actor here is up to date."""
        actor = self._actors.get(actor_id)
        if actor is not None and actor.loaded and not actor.turning:
            newest = await self._store.last(actor.subject)
            if actor.loaded and not actor.turning and actor.seq == (newest.seq if newest else 0):
                return actor.state, actor.seq
        state, seq, _ = await self._fold(actor_id)
        return state, seq

    @property
    def active(self) -> int:
        """Actors in memory."""
        return len(self._actors)

    def states(self) -> dict[str, S]:
        """States of the actors in memory, by id."""
        return {actor_id: actor.state for actor_id, actor in self._actors.items() if actor.loaded}

    async def drain(self) -> None:
        """Take nothing more in, finish the turns under way, hand back what is not finished."""
        self._draining = True
        while tasks := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(tasks)
        for actor in self._actors.values():
            self._cancel_local_timer(actor)
            for settle in actor.tokens:
                settle(Interrupted())
            actor.tokens.clear()
        self._actors.clear()

    # -- turns -----------------------------------------------------------------------------------------------------

    def _actor(self, actor_id: str) -> Actor[C, S, E]:
        actor = self._actors.get(actor_id)
        if actor is None:
            if len(self._actors) >= self._limits.actors_max:
                self.passivate(0.0)
            subject = subjects.events(self.service, self.aggregate, actor_id)
            actor = self._actors[actor_id] = Actor(actor_id, subject, self._decider.initial(actor_id))
        return actor

    def _put(self, actor: Actor[C, S, E], item: Input[C, S, E]) -> None:
        actor.box.append(item)
        if not actor.turning:
            actor.turning = True
            self._spawn(self._turns(actor))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _turns(self, actor: Actor[C, S, E]) -> None:
        losses = 0
        while actor.box:
            items: list[Input[C, S, E]] = []
            try:
                if not actor.loaded:
                    if losses or actor.known or not self._decider.begins(actor.box[0].command):
                        await self._load(actor)
                    actor.known = True
                items, actor.box = actor.box, []
                await self._turn(actor, items)
                losses = 0
            except Conflict as conflict:
                self._observer.conflict()
                losses += 1
                actor.loaded = False
                if losses <= self._limits.conflicts_max:
                    actor.box = items + actor.box
                else:
                    self._give_up(actor, items, conflict)
            except Exception as error:  # the one place where a turn's failure ends: whoever waits is told
                actor.loaded = False
                self._give_up(actor, items, error)
        actor.turning = False
        actor.touched_s = self._clock.monotonic_s()
        self._settle_if_quiet(actor)

    async def _turn(self, actor: Actor[C, S, E], items: list[Input[C, S, E]]) -> None:
        now_ms = self._clock.now_ms()
        # Until the commit is acknowledged this state is nobody's truth: a failure below folds it anew.
        actor.loaded = False
        state, events, answers = self._judge(actor.state, items, now_ms)
        if events:
            await self._commit(actor, state, items, events, now_ms)
        actor.state, actor.loaded = state, True
        if events:
            for effect in self._decider.react(state, events):
                self._start(actor, effect)
            faults.point("actor.after_effects")
        for answered, answer in answers:
            answered(answer if isinstance(answer, Rejected) else Outcome(state, actor.seq, answer))
        for item in items:
            if item.settled is not None:
                actor.tokens.append(item.settled)
        self._watch_time(actor, now_ms)

    def _judge(
        self, state: S, items: list[Input[C, S, E]], now_ms: int
    ) -> tuple[S, list[E], list[tuple[Answered[S, E], Sequence[E] | Rejected]]]:
        """Decide one command after the other, then let follow what follows. Pure but for changing the state."""
        decide, evolve, advance = self._decider.decide, self._decider.evolve, self._decider.advance
        events: list[E] = []
        answers: list[tuple[Answered[S, E], Sequence[E] | Rejected]] = []
        for item in items:
            facts: Sequence[E] | Rejected
            try:
                facts = decide(item.command, state, now_ms)
            except Rejected as refused:
                facts = refused
            else:
                for fact in facts:
                    state = evolve(state, fact)
                events += facts
            if item.answered is not None:
                answers.append((item.answered, facts))
        while following := advance(state, now_ms):
            for fact in following:
                state = evolve(state, fact)
            events += following
        return state, events, answers

    async def _commit(
        self, actor: Actor[C, S, E], state: S, items: list[Input[C, S, E]], events: list[E], now_ms: int
    ) -> None:
        first = items[0]
        actor.by = first.by or actor.by or self.service
        actor.corr = first.corr or actor.corr or first.message_id
        commit = Commit(at=rfc3339(now_ms), by=actor.by, cause=first.message_id, corr=actor.corr, events=events)
        types = self._codec.types_header(events)
        headers = {HEADER_TYPES: types}
        summary = self._decider.summary(state)
        if summary is not None:
            headers[HEADER_SUMMARY] = _ENCODE(summary).decode()
        trace = next((item.trace for item in items if item.trace), "")
        if trace:
            headers["traceparent"] = trace
        self._commits += 1
        faults.point("actor.before_commit")
        began = self._clock.monotonic_s()
        actor.seq = await self._store.append(
            actor.subject,
            self._parts(commit),
            expect=actor.seq,
            msg_id=f"{self._nonce}-{self._commits}",
            headers=headers,
        )
        self._observer.committed(types.split(","), self._clock.monotonic_s() - began)
        faults.point("actor.after_commit")
        actor.events_unsnapped += len(events)
        if self._snapshots is not None and actor.events_unsnapped >= self._limits.snapshot_every_events:
            actor.events_unsnapped = 0
            self._snapshots.save(actor.subject, actor.seq, state)

    def _parts(self, commit: Commit[E]) -> list[bytes]:
        """The commit as one message, or as several when it is larger than the broker takes; all or none are stored."""
        data = self._codec.encode(commit)
        if len(data) <= self._limits.commit_bytes_max:
            return [data]
        if len(commit.events) == 1:
            raise Rejected("too_large", "one event is larger than the broker takes", bytes=len(data))
        half = len(commit.events) // 2
        return [
            part
            for events in (commit.events[:half], commit.events[half:])
            for part in self._parts(msgspec.structs.replace(commit, events=events))
        ]

    def _give_up(self, actor: Actor[C, S, E], items: list[Input[C, S, E]], error: Exception) -> None:
        """Tell everybody who waits; the durable inputs come again later, and with them what was only in memory."""
        self._observer.failed(actor.actor_id, error)
        if not items:
            items, actor.box = actor.box, []
        if isinstance(error, Rejected):
            refused = error
        elif isinstance(error, Conflict):
            refused = Rejected("conflict", "too many writers at once")
        elif isinstance(error, UnknownType | Undecodable):
            refused = Rejected("poison", actor=actor.actor_id)
        else:
            refused = Rejected("internal")
        for item in items:
            _refuse(item, error, refused)
        for settle in actor.tokens:
            settle(error)
        actor.tokens.clear()
        if self._decider.time_command is not None:
            self._wake_later(actor, self._clock.now_ms() + GIVE_UP_RETRY_MS)

    # -- loading ---------------------------------------------------------------------------------------------------

    async def _load(self, actor: Actor[C, S, E]) -> None:
        actor.state, actor.seq, actor.events_unsnapped = await self._fold(actor.actor_id)
        actor.loaded = True
        if actor.seq:
            for effect in self._decider.recover(actor.state):
                self._start(actor, effect)

    async def _fold(self, actor_id: str) -> tuple[S, int, int]:
        subject = subjects.events(self.service, self.aggregate, actor_id)
        state, seq = self._decider.initial(actor_id), 0
        if self._snapshots is not None:
            found = await self._snapshots.load(subject)
            if found is not None:
                state, seq = found
        evolve, decode = self._decider.evolve, self._codec.decode
        count = 0
        async for record in self._store.read(subject, seq):
            for event in decode(record.data).events:
                state = evolve(state, event)
                count += 1
            seq = record.seq
        return state, seq, count

    def passivate(self, idle_s: float | None = None) -> int:
        """Forget actors that are at rest for `idle_s`; their truth is in the log. Returns how many."""
        limit = self._clock.monotonic_s() - (self._limits.idle_s if idle_s is None else idle_s)
        idle = [
            actor
            for actor in self._actors.values()
            if actor.quiet and not actor.tokens and not actor.settling and actor.touched_s <= limit
        ]
        for actor in idle:
            self._cancel_local_timer(actor)
            del self._actors[actor.actor_id]
        return len(idle)

    # -- effects and rest --------------------------------------------------------------------------------------------

    def _start(self, actor: Actor[C, S, E], effect: Any) -> None:
        key = getattr(effect, "key", None)
        if key is not None:
            if key in actor.running:
                return
            actor.running.add(key)
        actor.open_effects += 1

        def done(command: C | None) -> None:
            actor.open_effects -= 1
            actor.running.discard(key)
            if self._draining:
                return
            if command is not None:
                self._put(actor, Input(command, "local"))
            elif not actor.turning:
                self._settle_if_quiet(actor)

        self._effects.start(actor.actor_id, effect, done)

    def _settle_if_quiet(self, actor: Actor[C, S, E]) -> None:
        if not actor.quiet or actor.settling or self._draining or not actor.loaded:
            return
        due = None if self._decider.is_terminal(actor.state) else self._decider.deadline_at_ms(actor.state)
        if self._timers is not None and _must_arm(actor.armed_at_ms, due):
            actor.settling = True
            self._spawn(self._arm_and_settle(actor, self._timers, due))
        else:
            self._release(actor)

    async def _arm_and_settle(self, actor: Actor[C, S, E], timers: Timers, due: int | None) -> None:
        try:
            if due is None:
                await timers.disarm(actor.actor_id)
            else:
                await timers.arm(actor.actor_id, due)
            actor.armed_at_ms = due
        except Rejected as error:
            self._observer.failed(actor.actor_id, error)
            for settle in actor.tokens:
                settle(error)
            actor.tokens.clear()
            return
        finally:
            actor.settling = False
        if actor.quiet:
            self._release(actor)

    def _release(self, actor: Actor[C, S, E]) -> None:
        if actor.tokens:
            faults.point("actor.before_settle")
            tokens, actor.tokens = actor.tokens, []
            for settle in tokens:
                settle(None)

    # -- time ------------------------------------------------------------------------------------------------------

    def _watch_time(self, actor: Actor[C, S, E], now_ms: int) -> None:
        """While the actor is in memory its deadlines are judged to the millisecond, without the durable timer."""
        if self._decider.time_command is None:
            return
        if actor.armed_at_ms is not None and actor.armed_at_ms <= now_ms:
            actor.armed_at_ms = None  # it has fired, or will at once
        due = None if self._decider.is_terminal(actor.state) else self._decider.deadline_at_ms(actor.state)
        if due is None:
            self._cancel_local_timer(actor)
        elif actor.local_due_ms is None or due < actor.local_due_ms:
            self._wake_later(actor, due)

    def _wake_later(self, actor: Actor[C, S, E], due_ms: int) -> None:
        self._cancel_local_timer(actor)
        actor.local_due_ms = due_ms
        delay_s = max(0.0, (due_ms - self._clock.now_ms()) / 1000)
        actor.local_timer = asyncio.get_running_loop().call_later(min(delay_s, WAKE_MAX_S), self._wake, actor)

    def _wake(self, actor: Actor[C, S, E]) -> None:
        actor.local_timer = None
        due, actor.local_due_ms = actor.local_due_ms, None
        now_ms = self._clock.now_ms()
        if self._draining or self._decider.time_command is None:
            return
        if due is not None and due > now_ms:
            self._wake_later(actor, due)
        else:
            self._put(actor, Input(self._decider.time_command(now_ms), "time"))

    def _cancel_local_timer(self, actor: Actor[C, S, E]) -> None:
        if actor.local_timer is not None:
            actor.local_timer.cancel()
            actor.local_timer = None
        actor.local_due_ms = None


def _must_arm(armed_at_ms: int | None, due: int | None) -> bool:
    """A timer that fires too early is harmless, one that fires too late is not."""
    if due is None:
        return armed_at_ms is not None
    return armed_at_ms is None or due < armed_at_ms


def _refuse(item: Input[Any, Any, Any], error: BaseException, refused: Rejected) -> None:
    if item.answered is not None:
        item.answered(refused)
    if item.settled is not None:
        item.settled(error)
