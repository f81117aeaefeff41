"""Actors: one aggregate, one mailbox, one writer; what waits together is decided and committed together.

A turn takes everything that waits, judges one command after the other, lets follow what follows (`advance`), appends
ONE commit, and only when that is acknowledged starts the effects and answers. An input from a durable source is
settled when the actor is quiet: nothing waits, no effect runs in this process, and its durable timer is armed. So an
input that is not settled is the outbox: if the process dies, it comes again, the state is folded from the log, and
`recover` starts what was still open. Losing a race against another writer means: fold again, decide again.
"""

import asyncio
from typing import Any, Final, Generic, TypeVar

from contracts import subjects
from contracts.codec import CommitCodec
from contracts.errors import Rejected
from services.runtime import faults, telemetry
from services.runtime.alarms import Alarms, must_arm
from services.runtime.clock import Clock
from services.runtime.commit_writer import CommitWriter
from services.runtime.decider import Decider
from services.runtime.effects import EffectRunner, NoEffects
from services.runtime.event_store import Conflict, EventStore
from services.runtime.folding import Folded, Folding
from services.runtime.host_limits import HostLimits
from services.runtime.ids import Ids
from services.runtime.judging import judge
from services.runtime.mailbox import Actor, Answered, Input, Interrupted, Outcome, Settled, refusal_of
from services.runtime.news import News
from services.runtime.ports import Observer, Silent, Timers
from services.runtime.recent import Recent
from services.runtime.snapshots import Snapshots

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E")

GIVE_UP_RETRY_MS: Final = 5_000


class ActorHost(Generic[C, S, E]):
    """All actors of one aggregate in this process.

    `shared` says that other processes write the same aggregates as a rule, and not by accident: see News.
    """

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
        shared: bool = False,
    ) -> None:
        self.service, self.aggregate = service, aggregate
        self._decider, self._store = decider, store
        self._clock, self._ids = clock, ids
        self._effects: EffectRunner[C] = effects if effects is not None else NoEffects()
        self._timers, self._snapshots = timers, snapshots
        self._observer: Observer = observer if observer is not None else Silent()
        self._limits = limits if limits is not None else HostLimits()
        self._actors: dict[str, Actor[C, S, E]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._alarms = Alarms(clock, self._wake)
        self._recent = Recent(self._limits.ended_max, self._limits.ended_weight_max)
        self._time_type = type(decider.time_command(clock.now_ms())) if decider.time_command else None
        self._folding = Folding(decider, codec, store, snapshots)
        self._news = News(store, self._folding) if shared else None
        self._writer = CommitWriter(service, codec, store, self._limits.commit_bytes_max)

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

        message_id, trace = message_id or self._ids.new(), telemetry.current()
        self.deliver(actor_id, command, message_id=message_id, by=by, corr=corr, trace=trace, answered=answered)
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
        item: Input[C, S, E] = Input(command, message_id, by, corr, trace, settled, answered)
        actor = self._actor(actor_id)
        if type(command) is self._time_type:
            actor.armed_at_ms = None  # the durable timer has fired, whatever its clock says
        if self._draining:
            item.refuse(Interrupted(), Rejected("mailbox_full", "the service is stopping"))
        elif len(actor.box) >= self._limits.mailbox_messages_max:
            refused = Rejected("mailbox_full", actor=actor_id)
            item.refuse(refused, refused)
        else:
            self._put(actor, item)

    async def read(self, actor_id: str) -> tuple[S, int]:
        """State and last sequence, as the log has it now; from memory when the actor here is up to date."""
        actor = self._actors.get(actor_id)
        if actor is not None and actor.loaded and not actor.turning:
            if self._news is not None:
                if await self._news.bring_up_to_date(actor):
                    return actor.state, actor.seq
            else:
                newest = await self._store.last(actor.subject)
                if actor.loaded and not actor.turning and actor.seq == (newest.seq if newest else 0):
                    return actor.state, actor.seq
        elif self._news is not None and await self._news.never_written(self._subject(actor_id)):
            return self._decider.initial(actor_id), 0
        return (await self._fold(actor_id))[:2]

    @property
    def active(self) -> int:
        """Actors in memory."""
        return len(self._actors)

    @property
    def waiting(self) -> int:
        """Messages in all mailboxes."""
        return sum(len(actor.box) for actor in self._actors.values())

    def holds(self, actor_id: str) -> bool:
        """Whether the state of an actor is in memory."""
        return actor_id in self._actors and self._actors[actor_id].loaded

    def states(self) -> dict[str, S]:
        """States of the actors in memory, by id."""
        return {actor_id: actor.state for actor_id, actor in self._actors.items() if actor.loaded}

    async def drain(self) -> None:
        """Take nothing more in, finish the turns under way, hand back what is not finished."""
        self._draining = True
        while tasks := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(tasks)
        for actor in self._actors.values():
            self._alarms.cancel(actor)
            actor.settle(Interrupted())
        self._actors.clear()

    # -- turns -----------------------------------------------------------------------------------------------------

    def _actor(self, actor_id: str) -> Actor[C, S, E]:
        actor = self._actors.get(actor_id)
        if actor is None:
            if len(self._actors) >= self._limits.actors_max:
                self.passivate(0.0)
            actor = Actor(actor_id, self._subject(actor_id), self._decider.initial(actor_id))
            self._actors[actor_id] = actor
        return actor

    def _subject(self, actor_id: str) -> str:
        return subjects.events(self.service, self.aggregate, actor_id)

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
                elif self._news is not None and not await self._news.take_in(actor):
                    await self._load(actor)
                items = actor.take()
                with telemetry.under(actor.trace):
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
                if len(items) > 1 and not isinstance(error, Rejected):
                    actor.put_back(items)  # one of them is poison: alone it hurts nobody else
                else:
                    self._give_up(actor, items, error)
        actor.turning = False
        actor.touched_s = self._clock.monotonic_s()
        self._settle_if_quiet(actor)

    async def _turn(self, actor: Actor[C, S, E], items: list[Input[C, S, E]]) -> None:
        now_ms = self._clock.now_ms()
        # Until the commit is acknowledged this state is nobody's truth: a failure below folds it anew.
        actor.loaded = False
        state, events, answers = judge(self._decider, actor.state, items, now_ms)
        if events:
            faults.point("actor.before_commit")
            began_s = self._clock.monotonic_s()
            actor.seq = await self._writer.append(actor, items[0], events, self._decider.summary(state), now_ms)
            self._observer.committed(events, self._clock.monotonic_s() - began_s)
            faults.point("actor.after_commit")
        elif any(item.matters for item in items):
            await self._check_newest(actor)
        actor.state, actor.loaded = state, True
        if events:
            self._snap(actor, len(events))
            for effect in self._decider.react(state, events):
                self._start(actor, effect)
            faults.point("actor.after_effects")
        for answered, answer in answers:
            answered(answer if isinstance(answer, Rejected) else Outcome(state, actor.seq, answer))
        actor.tokens += [item.settled for item in items if item.settled is not None]
        self._watch_time(actor, now_ms)

    async def _check_newest(self, actor: Actor[C, S, E]) -> None:
        """Raise Conflict when somebody else has written: what changes nothing here may only be news to this process.

        An append finds that out by itself; a refusal, or a double that is thrown away, would not. It holds for a state
        that was just folded too: reads may be answered by a replica that is behind.
        """
        seq = await self._store.newest(actor.subject)
        if seq != actor.seq:
            raise Conflict(seq)

    def _snap(self, actor: Actor[C, S, E], events: int) -> None:
        actor.events_unsnapped += events
        snapshots, behind = self._snapshots, actor.events_unsnapped
        if snapshots is None or behind < self._limits.snapshot_every_events or behind < snapshots.every(actor.state):
            return
        actor.events_unsnapped = 0
        snapshots.save(actor.subject, actor.seq, actor.state)

    def _give_up(self, actor: Actor[C, S, E], items: list[Input[C, S, E]], error: Exception) -> None:
        """Tell everybody who waits; the durable inputs come again later, and with them what was only in memory."""
        self._observer.failed(actor.actor_id, error)
        if not items:
            items, actor.box = actor.box, []
        refused = refusal_of(error, actor.actor_id)
        for item in items:
            item.refuse(error, refused)
        # What was taken in before comes again, too. It is innocent, unless what broke is what it led to here.
        innocent = not isinstance(error, Rejected) and any(item.matters for item in items)
        self._hand_back(actor, Interrupted() if innocent else error)

    def _hand_back(self, actor: Actor[C, S, E], error: BaseException) -> None:
        """The durable inputs come again later; whatever else waits is looked at again by time."""
        actor.settle(error)
        if self._decider.time_command is not None:
            self._alarms.set(actor, self._clock.now_ms() + GIVE_UP_RETRY_MS)

    # -- loading ---------------------------------------------------------------------------------------------------

    async def _load(self, actor: Actor[C, S, E]) -> None:
        actor.state, actor.seq, actor.events_unsnapped, trace = await self._fold(actor.actor_id)
        actor.trace = trace or actor.trace
        actor.loaded = True
        actor.armed_at_ms = None  # who wrote meanwhile may have moved the timer
        if actor.seq:
            with telemetry.under(actor.trace):
                for effect in self._decider.recover(actor.state):
                    self._start(actor, effect)

    async def _fold(self, actor_id: str) -> Folded[S]:
        return await self._folding.fold(actor_id, self._subject(actor_id))

    def passivate(self, idle_s: float | None = None) -> int:
        """Forget actors that are at rest for `idle_s`; their truth is in the log. Returns how many."""
        limit = self._clock.monotonic_s() - (self._limits.idle_s if idle_s is None else idle_s)
        idle = [actor for actor in self._actors.values() if actor.touched_s <= limit and self._may_go(actor)]
        for actor in idle:
            self._forget(actor)
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
        due = self._due(actor.state)
        if self._timers is not None and must_arm(actor.armed_at_ms, due):
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
            self._hand_back(actor, error)
            return
        finally:
            actor.settling = False
        # Meanwhile more may have been decided, and another moment may be due.
        self._settle_if_quiet(actor)

    def _release(self, actor: Actor[C, S, E]) -> None:
        if actor.tokens:
            faults.point("actor.before_settle")
            actor.settle(None)
        if self._decider.is_terminal(actor.state):
            self._make_room(actor)

    def _may_go(self, actor: Actor[C, S, E]) -> bool:
        """Whether something durable wakes it when it must be woken: a timer, or nothing is due."""
        due = self._due(actor.state) if actor.loaded else None
        return actor.at_rest and (self._timers is None or not actor.loaded or not must_arm(actor.armed_at_ms, due))

    def _make_room(self, actor: Actor[C, S, E]) -> None:
        """What just ended stays for the questions that follow; older ones and big ones go."""
        for over in self._recent.add(actor, self._decider.weight(actor.state)):
            if over.at_rest and self._decider.is_terminal(over.state):
                self._forget(over)

    def _forget(self, actor: Actor[C, S, E]) -> None:
        self._alarms.cancel(actor)
        self._actors.pop(actor.actor_id, None)
        self._recent.drop(actor.actor_id)

    def _watch_time(self, actor: Actor[C, S, E], now_ms: int) -> None:
        """While the actor is in memory its deadlines are judged to the millisecond, without the durable timer."""
        if actor.armed_at_ms is not None and actor.armed_at_ms <= now_ms:
            actor.armed_at_ms = None  # it has fired, or will at once
        if self._decider.time_command is not None:
            self._alarms.watch(actor, self._due(actor.state))

    def _due(self, state: S) -> int | None:
        return None if self._decider.is_terminal(state) else self._decider.deadline_at_ms(state)

    def _wake(self, actor: Actor[C, S, E], now_ms: int) -> None:
        if not self._draining and self._decider.time_command is not None:
            self._put(actor, Input(self._decider.time_command(now_ms), "time"))
