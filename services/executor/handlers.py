"""The request verbs of runs: commands go into the durable mailbox, queries are answered from the log."""

import gc
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from contracts.codec import CommitCodec
from contracts.commit import HEADER_BY, HEADER_CORRELATION, HEADER_REPLY, HEADER_SUMMARY
from contracts.epic import DEFAULT_EPIC
from contracts.errors import Rejected
from contracts.limits import ID_CHARS_MAX
from contracts.requests import Page, RunCancel, RunRef, RunStart, RunWaits, StrategyChoose
from contracts.run import (
    CancelRun,
    ResumeRun,
    RunEvent,
    RunSummary,
    RunView,
    StartRun,
    Wait,
)
from contracts.run_proofs import ReplayReport, RunAudit, RunResult
from contracts.strategy import NO_STRATEGY, StrategyChoice, choice_texts
from contracts.streams import COMMANDS, EVENTS_PLANNER
from contracts.subjects import EPIC_RUN_PREFIX, ID, check_id, command, events, rpc
from services.executor import views
from services.executor.mailboxes import Host
from services.executor.replay import Replay
from services.executor.run.decide import check_start
from services.executor.run.state import Run, digest, is_terminal
from services.executor.strategy_book import StrategyBook
from services.runtime.app import App
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.event_store import EventStore, Recorded
from services.runtime.host_limits import HEADERS_BYTES
from services.runtime.ids import Ids
from services.runtime.rpc import DEFERRED, Caller, Deferred

PAGE_MAX: Final = 500
CHOOSE: Final = rpc("planner", "strategy", "choose")
CHOOSE_WITHIN_S: Final = 5.0
STRATEGY_WAIT_S: Final = 2.0
"""A version that was stored just now may still be on its way here."""
RUNS_WAITING_MAX: Final = 1_000
WAITS_MAX: Final = 10_000
WAITS_WITHIN_S: Final = 5.0
ROOM_BYTES: Final = 2 * HEADERS_BYTES
"""Room kept free in a message: its headers, and the commit that will hold what it says."""
_ENCODE: Final = msgspec.json.Encoder().encode


class _At(msgspec.Struct):
    at: str = ""


class RunVerbs:
    """The verbs `run.*` of the executor."""

    def __init__(
        self,
        *,
        host: Host,
        bus: Bus,
        store: EventStore,
        codec: CommitCodec[RunEvent],
        book: StrategyBook,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._host, self._bus, self._store, self._codec = host, bus, store, codec
        self._book, self._clock, self._ids = book, clock, ids

    def bind(self, app: App) -> None:
        """Answer every verb."""
        for verb in ("start", "cancel", "resume", "get", "result", "graph", "replay", "audit", "waits"):
            app.handle("run", verb, getattr(self, verb))
        app.handle("run", "list", self.page)

    # -- commands ----------------------------------------------------------------------------------------------------

    async def start(self, request: RunStart, caller: Caller) -> Deferred:
        """Check the plan and put it into the run's mailbox; the run itself answers when it has begun."""
        request = await self._with_strategy(request)
        run_id = request.run_id if request.run_id is not None else self._ids.new()
        strategy = await self._strategy(request.strategy) if request.strategy else None
        if run_id.startswith(EPIC_RUN_PREFIX):
            text = f"run ids that begin with {EPIC_RUN_PREFIX} belong to the open runs of epics"
            raise Rejected("bad_id", text, field="run_id", value=run_id[:ID_CHARS_MAX])
        begin = StartRun(
            run_id=run_id,
            goal=request.goal,
            epic_id=request.epic_id,
            tasks=request.tasks,
            options=request.options,
            strategy=strategy,
            open=request.open,
        )
        check_start(begin)
        await self._check_epic(request.epic_id)
        return await self._say(run_id, "start", begin, caller)

    async def cancel(self, request: RunCancel, caller: Caller) -> Deferred:
        """Stop a run, or one task of it."""
        run_id = check_id(request.run_id, "run_id")
        run, _ = await self._read(run_id)
        return await self._say(run_id, "cancel", CancelRun(request.reason, request.task_id, run.ended + 1), caller)

    async def resume(self, request: RunRef, caller: Caller) -> Deferred:
        """Try again what ended badly."""
        run, _ = await self._read(request.run_id)
        return await self._say(request.run_id, "resume", ResumeRun(aimed_at=run.ended + 1), caller)

    async def _strategy(self, reference: str) -> str:
        """`name@version`. One that was stored just now may still be on its way; of a name that is none, nothing is."""
        strategy = self._book.resolve(reference)
        if not self._book.has(strategy):
            name = strategy.partition("@")[0]
            stored = ID.match(name) and await self._bus.last(EVENTS_PLANNER, events("planner", "strategy", name))
            await self._book.find(strategy, STRATEGY_WAIT_S if stored else 0)
        return strategy

    async def _check_epic(self, epic_id: str | None) -> None:
        """The planner's log says which epics there are; the default one may come with its first task."""
        if epic_id is None or epic_id == DEFAULT_EPIC:
            return
        if await self._bus.last(EVENTS_PLANNER, events("planner", "epic", check_id(epic_id, "epic_id"))) is None:
            raise Rejected("epic_not_found", f"there is no epic {epic_id}", epic_id=epic_id)

    async def _with_strategy(self, request: RunStart) -> RunStart:
        """The request with the strategy that its plan gets: as the planner chooses for goals, so here for plans."""
        if request.strategy == NO_STRATEGY:
            return msgspec.structs.replace(request, strategy=None)
        texts = choice_texts(request.tasks, request.goal) if request.strategy is None and self._book.any_active else []
        if not texts:
            return request
        body = StrategyChoose(texts)
        try:
            chosen = await self._bus.call(CHOOSE, body, timeout_s=CHOOSE_WITHIN_S, into=StrategyChoice)
        except Rejected as error:
            if error.code not in ("service_unavailable", "timeout"):
                raise
            message = "the planner, which chooses the strategy, does not answer"
            hint = f"start it (`htdag ps`), or name a strategy, or {NO_STRATEGY}"
            raise Rejected("service_unavailable", message, service="planner", hint=hint) from error
        return msgspec.structs.replace(request, strategy=chosen.strategy)

    async def _say(self, run_id: str, verb: str, said: StartRun | CancelRun | ResumeRun, caller: Caller) -> Deferred:
        data = _ENCODE(said)
        most = self._bus.payload_max - ROOM_BYTES
        if len(data) > most:
            hint = "start the run with fewer tasks and `open`, then add the others"
            raise Rejected("too_large", "the plan is larger than the broker carries", max=most, hint=hint)
        headers = {HEADER_BY: caller.by, HEADER_CORRELATION: caller.corr}
        if caller.reply:
            headers[HEADER_REPLY] = caller.reply
        # Saying it twice must bring two answers, so the broker may not drop the second as a double: the run judges it.
        subject = command("executor", "run", run_id, verb)
        await self._bus.store(subject, data, stream=COMMANDS, msg_id=f"{verb}:{self._ids.new()}", headers=headers)
        return DEFERRED

    # -- queries -----------------------------------------------------------------------------------------------------

    async def get(self, request: RunRef, caller: Caller) -> RunView:
        """A run as it stands now."""
        run, seq = await self._read(request.run_id)
        return views.view_of(run, seq)

    async def result(self, request: RunRef, caller: Caller) -> RunResult:
        """What a run produced so far."""
        run, _ = await self._read(request.run_id)
        return views.result_of_run(run)

    async def graph(self, request: RunRef, caller: Caller) -> dict[str, str]:
        """The state of every task."""
        run, _ = await self._read(request.run_id)
        return views.graph_of(run)

    async def page(self, request: Page, caller: Caller) -> list[RunSummary]:
        """Runs, the one that changed last first."""
        if not 1 <= request.limit <= PAGE_MAX:
            raise Rejected(
                "bad_request", "limit is out of bounds", field="limit", max=PAGE_MAX, requested=request.limit
            )
        newest = await self._newest()
        if request.after is not None:
            places = [index for index, (run_id, _) in enumerate(newest) if run_id == request.after]
            if not places:
                raise Rejected("run_not_found", run_id=request.after[:64])
            newest = newest[places[0] + 1 :]
        return [_summary(run_id, record) for run_id, record in newest[: request.limit]]

    async def waits(self, request: RunWaits, caller: Caller) -> list[Wait]:
        """Everything that waits, with deadlines: of one run, or of those that go on, the one that changed last first.

        Of many runs as many are looked at as fit into a few seconds and one answer.
        """
        if request.run_id is not None:
            run, _ = await self._read(request.run_id)
            views.status_of(run)
            return [*views.waits_of(run)]
        found: list[Wait] = []
        going_on = [run_id for run_id, record in await self._newest() if _summary(run_id, record).status == "running"]
        until_s = self._clock.monotonic_s() + WAITS_WITHIN_S
        for run_id in going_on[:RUNS_WAITING_MAX]:
            if len(found) >= WAITS_MAX or self._clock.monotonic_s() >= until_s:
                break
            run, _ = await self._read(run_id)
            found.extend(views.waits_of(run))
        return found[:WAITS_MAX]

    async def replay(self, request: RunRef, caller: Caller) -> ReplayReport:
        """Fold the stored log anew and compare; nobody is called."""
        replay, live, seconds = await self._replayed(request.run_id)
        return replay.report(live, seconds)

    async def audit(self, request: RunRef, caller: Caller) -> RunAudit:
        """What was paid, twice or not, and what still waits."""
        replay, _, _ = await self._replayed(request.run_id)
        return replay.audit()

    async def _read(self, run_id: str) -> tuple[Run, int]:
        return await self._host.read(check_id(run_id, "run_id"))

    async def _replayed(self, run_id: str) -> tuple[Replay, str | None, float]:
        """The log folded up to where the live state stands, that state's digest while it has none recorded, seconds."""
        run, seq = await self._read(run_id)
        live = None if is_terminal(run) else digest(run)
        replay = Replay(run_id)
        seconds = 0.0
        async for record in self._store.read(events("executor", "run", run_id)):
            if record.seq > seq:
                break
            began_s = self._clock.monotonic_s()
            # Folding makes many objects and no cycles: looking for some would take longer than the fold.
            gc.disable()
            try:
                replay.take(self._codec.decode(record.data).events)
            finally:
                gc.enable()
            seconds += self._clock.monotonic_s() - began_s
        return replay, live, seconds

    async def _newest(self) -> list[tuple[str, Recorded]]:
        subjects = await self._store.subjects(events("executor", "run", "*"))
        last: Mapping[str, Recorded] = await self._store.last_of_many([*subjects])
        in_order = sorted(last.items(), key=lambda item: -item[1].seq)
        return [(subject.rpartition(".")[2], record) for subject, record in in_order]


def _summary(run_id: str, record: Recorded) -> RunSummary:
    """The summary that the run's newest commit carries in its header."""
    shown: dict[str, Any] = {"run_id": run_id, "status": "running"}
    header = record.headers.get(HEADER_SUMMARY)
    if header:
        shown.update(msgspec.json.decode(header))
    shown["last_at"] = msgspec.json.decode(record.data, type=_At).at
    return msgspec.convert(shown, RunSummary)
