"""This worker's copy of the ledger, and its pen: what waits together is judged and committed together.

All workers write one subject, and each append says which commit it has seen last: of two that race one loses, reads
what the other wrote, and judges again. So a decision always rests on everything before it, there is no owner whose
death others would have to wait for, and a limit holds at every sequence of the log.

What a limit puts off waits here, in order of arrival, until the log moves or its time has come.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

from contracts.codec import CommitCodec
from contracts.commit import HEADER_TYPES, Commit
from contracts.errors import Rejected
from contracts.ledger import LEDGER_ID, LedgerEvent, LlmPaid, LlmReleased
from contracts.subjects import events
from services.llm_worker.ledger.decider import Later, LedgerCommand, Reserve, decide
from services.llm_worker.ledger.state import Ledger, evolve, trim
from services.runtime import faults
from services.runtime.clock import Clock, rfc3339
from services.runtime.decider import Decider
from services.runtime.event_store import Conflict, EventStore, Recorded
from services.runtime.folding import Folding
from services.runtime.ports import Observer, Silent
from services.runtime.snapshots import Snapshots

SUBJECT: Final = events("llm-worker", "ledger", LEDGER_ID)
TURN_MAX: Final = 512
"""So many commands make one commit at most."""
LINGER_S: Final = 0.02
"""So long a payment may wait for others that nobody waits for either."""
IDLE_S: Final = 1.0
RETRY_S: Final = 0.25
SNAPSHOT_EVERY: Final = 20_000
BEHIND_S: Final = 0.01
AT_ONCE: Final = 0.0
CAUGHT_UP_S: Final = 2.0
"""So long a worker waits for its copy to hold what the log holds already."""


HEADER_AFTER: Final = "Htdag-After"
"""On each commit: the sequence of the one before it. Whoever hears a commit knows by it that none is missing."""


class _Wish:
    """A command on its way into the log."""

    __slots__ = ("answer", "command", "later", "until_s")

    def __init__(self, command: LedgerCommand, until_s: float | None) -> None:
        self.command, self.until_s = command, until_s
        self.answer: asyncio.Future[Sequence[LedgerEvent]] = asyncio.get_running_loop().create_future()
        self.later: Rejected | None = None

    @property
    def at_ms(self) -> int | None:
        """When it may be granted by time alone."""
        return self.later.at_ms if isinstance(self.later, Later) else None

    def expired(self, now_s: float) -> bool:
        return self.until_s is not None and now_s >= self.until_s


def _nothing(_corr_id: str) -> None:
    return None


class Book:
    """Judges and writes. `log` is structlog's."""

    def __init__(
        self,
        *,
        store: EventStore,
        decider: Decider[LedgerCommand, Ledger, LedgerEvent],
        codec: CommitCodec[LedgerEvent],
        clock: Clock,
        log: Any,
        snapshots: Snapshots[Ledger] | None = None,
        observer: Observer | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._codec, self._clock, self._log = store, codec, clock, log
        self._snapshots, self._observer, self._changed = snapshots, observer or Silent(), changed
        self._folding = Folding(decider, codec, store, snapshots)
        self.state, self.seq = decider.initial(LEDGER_ID), 0
        self._waiting: list[_Wish] = []
        self._fresh: list[_Wish] = []
        self._lazy: list[_Wish] = []
        self._heard: list[Recorded] = []
        self.ended: Callable[[str], None] = _nothing
        """Told of each call whose end another worker has written."""
        self._behind: list[tuple[int, asyncio.Future[None]]] = []
        self._moved = self._stale = self._raced = False
        self._events_unsnapped = 0
        self._lazy_since_s = 0.0
        self._wake = asyncio.Event()
        self._nonce, self._count = secrets.token_hex(6), 0

    # -- ways in -----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Fold the log. Raises Rejected when the broker is away, UnknownType when a newer version wrote it."""
        folded = await self._folding.fold(LEDGER_ID, SUBJECT)
        self.state, self.seq, self._events_unsnapped = folded[:3]

    def hear(self, record: Recorded) -> None:
        """A commit of the ledger, whoever wrote it."""
        if record.seq > self.seq:
            self._heard.append(record)
            self._wake.set()

    def ask(self, command: LedgerCommand, until_s: float | None = None) -> "asyncio.Future[Sequence[LedgerEvent]]":
        """Put a command in; the answer comes when its commit is acknowledged, or a Rejected.

        What a limit puts off waits until `until_s` of the loop's clock, and while the broker is away it waits, too.
        Without one it is tried for ever.
        """
        wish = _Wish(command, until_s)
        self._fresh.append(wish)
        self._wake.set()
        return wish.answer

    def note(self, command: LedgerCommand) -> "asyncio.Future[Sequence[LedgerEvent]]":
        """The same for what nobody waits for: it may travel with what comes within a moment."""
        wish = _Wish(command, None)
        if not self._lazy:
            self._lazy_since_s = asyncio.get_running_loop().time()
        self._lazy.append(wish)
        if len(self._lazy) in (1, TURN_MAX):
            self._wake.set()
        return wish.answer

    async def catch_up(self) -> bool:
        """Wait until this copy holds all that the log held when this was called. False when that takes too long."""
        try:
            async with asyncio.timeout(CAUGHT_UP_S):
                newest = await self._store.newest(SUBJECT)
                while self.seq < newest:
                    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._behind.append((newest, told))
                    self._stale = True  # what was not heard is read
                    self._wake.set()
                    await told
        except (TimeoutError, Rejected) as error:
            self._log.warning("ledger_not_caught_up", reason=str(error) or "timeout", seq=self.seq)
            return False
        return True

    @property
    def waiting(self) -> int:
        """How many calls wait for a limit."""
        return sum(not wish.answer.done() for wish in self._waiting)

    @property
    def held_up(self) -> int:
        """How many of them wait for a limit of all calls: no other call would fare better, on whichever worker."""
        return sum(
            isinstance(wish.command, Reserve) and wish.command.model_limits.lifted and not wish.answer.done()
            for wish in self._waiting
        )

    # -- turns -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Judge and write for ever."""
        while True:
            await self._until_something()
            self._wake.clear()
            try:
                await self._turn()
            except Conflict:
                self._raced = True
                self._observer.conflict()
            except Rejected as error:
                # The broker is away, or its disk is full: what waits goes on waiting, each to its own deadline.
                self._stale = True
                self._log.warning("ledger_unwritable", code=error.code, waiting=len(self._fresh))
                self._give_up(error)
                await asyncio.sleep(RETRY_S)

    async def _until_something(self) -> None:
        delay_s = self._next_s()
        if delay_s <= 0:
            return
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _next_s(self) -> float:
        """How long nothing can happen unless somebody speaks."""
        if self._fresh or self._heard or len(self._lazy) >= TURN_MAX:
            return AT_ONCE
        now_s, now_ms = asyncio.get_running_loop().time(), self._clock.now_ms()
        moments = [self._lazy_since_s + LINGER_S - now_s] if self._lazy else []
        for wish in self._waiting:
            if wish.until_s is not None:
                moments.append(wish.until_s - now_s)
            if wish.at_ms is not None:
                moments.append((wish.at_ms - now_ms) / 1000)
        return max(min(moments, default=IDLE_S), 0.001) if not self._wake.is_set() else AT_ONCE

    async def _turn(self) -> None:
        self._take_heard()
        if self._stale:
            await self._read_on()
        self._tell_behind()
        batch = self._batch()
        if not batch:
            self._changed()  # what others wrote, or another day
            return
        state = self.state
        state.undo = []
        done, events_ = self._judge(batch)
        if events_:
            await self._write(batch, events_)
        state.undo = None
        for wish, outcome in done:
            if not wish.answer.done():
                if isinstance(outcome, Rejected):
                    wish.answer.set_exception(outcome)
                else:
                    wish.answer.set_result(outcome)
        if events_:
            trim(state, self._clock.now_ms())
            self._snap(len(events_))
        self._changed()

    def _batch(self) -> list[_Wish]:
        """What is judged now: what waits only when the log has moved or its time has come; in order of arrival."""
        now_s, now_ms = asyncio.get_running_loop().time(), self._clock.now_ms()
        batch: list[_Wish] = []
        if self._moved or any(
            wish.expired(now_s) or (wish.at_ms is not None and wish.at_ms <= now_ms) for wish in self._waiting
        ):
            batch, self._waiting, self._moved = self._waiting, [], False
        # Payments first: they make room.
        if self._lazy and (
            self._fresh or batch or now_s >= self._lazy_since_s + LINGER_S or len(self._lazy) >= TURN_MAX
        ):
            batch, self._lazy = [*self._lazy[:TURN_MAX], *batch], self._lazy[TURN_MAX:]
        fresh, self._fresh = self._fresh[:TURN_MAX], self._fresh[TURN_MAX:]
        return [wish for wish in (*batch, *fresh) if not wish.answer.cancelled()]

    def _judge(
        self, batch: list[_Wish]
    ) -> tuple[list[tuple[_Wish, Sequence[LedgerEvent] | Rejected]], list[LedgerEvent]]:
        """Decide one after the other on the state as it becomes; what is put off stays here."""
        now_ms, now_s = self._clock.now_ms(), asyncio.get_running_loop().time()
        done: list[tuple[_Wish, Sequence[LedgerEvent] | Rejected]] = []
        events_: list[LedgerEvent] = []
        for wish in batch:
            try:
                facts = decide(wish.command, self.state, now_ms)
            except Later as later:
                wish.later = later
                if wish.expired(now_s):
                    done.append((wish, later))
                else:
                    self._waiting.append(wish)
                continue
            except Rejected as refused:
                done.append((wish, refused))
                continue
            except Exception:  # one wish that breaks us must not stop the others
                self._log.exception("ledger_broke", corr_id=wish.command.corr_id)
                done.append((wish, Rejected("internal")))
                continue
            for fact in facts:
                evolve(self.state, fact)
            events_ += facts
            done.append((wish, facts))
        return done, events_

    async def _write(self, batch: list[_Wish], events_: list[LedgerEvent]) -> None:
        """Append what was decided. When that fails it is taken back, and will be judged again on what the log says."""
        now_ms = self._clock.now_ms()
        commit = Commit(at=rfc3339(now_ms), by="llm-worker", cause=self._nonce, corr=LEDGER_ID, events=events_)
        headers = {HEADER_TYPES: self._codec.types_header(events_), HEADER_AFTER: str(self.seq)}
        self._count += 1
        faults.point("llm_worker.before_ledger")
        began_s = self._clock.monotonic_s()
        try:
            self.seq = await self._store.append(
                SUBJECT,
                (self._codec.encode(commit),),
                expect=self.seq,
                msg_id=f"{self._nonce}-{self._count}",
                headers=headers,
            )
        except BaseException:
            self.state.take_back()
            self._stale = True
            put_off = set(self._waiting)
            self._fresh = [wish for wish in batch if wish not in put_off] + self._fresh
            raise
        self._observer.committed(events_, self._clock.monotonic_s() - began_s)
        faults.point("llm_worker.after_ledger")
        self._note_move(events_)

    def _give_up(self, error: Rejected) -> None:
        """The deadline counts while the broker is away, too."""
        now_s = asyncio.get_running_loop().time()
        for wishes in (self._fresh, self._waiting):
            for wish in [wish for wish in wishes if wish.expired(now_s)]:
                wishes.remove(wish)
                if not wish.answer.done():
                    wish.answer.set_exception(error)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read_on(self) -> None:
        """Read what stands behind the last commit that is known here, as the broker has it now."""
        known = self.seq
        async for record in self._store.read(SUBJECT, known):
            self._fold(record)
        if self._raced and self.seq == known:
            await asyncio.sleep(BEHIND_S)  # we asked a replica that is a moment behind
        self._stale = self._raced = False

    def _tell_behind(self) -> None:
        """Wake who waits for a commit that is here now; who gave up waits no more."""
        behind, self._behind = self._behind, []
        for newest, told in behind:
            if told.done():
                continue
            if newest <= self.seq:
                told.set_result(None)
            else:
                self._behind.append((newest, told))
                self._stale = True

    def _take_heard(self) -> None:
        heard, self._heard = self._heard, []
        for record in heard:
            if record.seq > self.seq and record.headers.get(HEADER_AFTER) == str(self.seq):
                self._fold(record)
        if heard:
            # What was heard out of order is read in order before anything else is decided.
            self._stale = self._stale or heard[-1].seq > self.seq
            trim(self.state, self._clock.now_ms())

    def _fold(self, record: Recorded) -> None:
        facts = self._codec.decode(record.data).events
        for fact in facts:
            evolve(self.state, fact)
            if isinstance(fact, LlmPaid | LlmReleased):
                self.ended(fact.corr_id)
        self.seq = record.seq
        self._events_unsnapped += len(facts)
        self._note_move(facts)

    def _note_move(self, facts: Sequence[LedgerEvent]) -> None:
        """What waits is judged again when a call has ended; that others have begun gives nobody room."""
        if self._waiting and any(isinstance(fact, LlmPaid | LlmReleased) for fact in facts):
            self._moved = True
            self._wake.set()

    def _snap(self, count: int) -> None:
        self._events_unsnapped += count
        if self._snapshots is not None and self._events_unsnapped >= SNAPSHOT_EVERY:
            self._events_unsnapped = 0
            self._snapshots.save(SUBJECT, self.seq, self.state)

    async def drain(self, within_s: float) -> None:
        """Wait until every payment that is here is stored."""
        open_ = [wish.answer for wish in (*self._lazy, *self._fresh)]
        self._lazy_since_s = 0.0
        self._wake.set()
        if open_:
            await asyncio.wait(open_, timeout=within_s)
