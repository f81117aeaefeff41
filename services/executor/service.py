"""Composition root of the executor: nothing is wired anywhere else."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from contracts.codec import CommitCodec
from contracts.rights import NODES
from contracts.run import (
    RunCommand,
    RunEnded,
    RunEvent,
    TakeTime,
    TaskBlocked,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
)
from contracts.streams import CONSUMERS, EVENTS_EXECUTOR, EVENTS_PLANNER, TIMERS
from contracts.subjects import LLM_HEALTH, events
from services.executor.config import SECTION, Config
from services.executor.effect_runner import RunEffects
from services.executor.epic_budgets import EpicBudgets
from services.executor.handlers import RunVerbs
from services.executor.llm_health import LlmWatch
from services.executor.mailboxes import Mailboxes
from services.executor.run import snapshot
from services.executor.run.advance import advance
from services.executor.run.decider import RUN
from services.executor.run.gates import Gating
from services.executor.run.state import Run
from services.executor.sleepers import Sleepers
from services.executor.strategy_book import StrategyBook
from services.runtime.actor import ActorHost
from services.runtime.app import App
from services.runtime.bus import Bus
from services.runtime.decider import Decider
from services.runtime.grants import Grants
from services.runtime.host_limits import HEADERS_BYTES, HostLimits
from services.runtime.housekeeping import tidy
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.lua.host import LuaHost
from services.runtime.placement import Placement
from services.runtime.pull import Puller
from services.runtime.snapshots import JetStreamSnapshots
from services.runtime.timers import JetStreamTimers

PASSIVATE_EVERY_S: Final = 5.0
BOOK_WAIT_S: Final = 10.0
_TASK_OUTCOMES: Final[dict[type[Any], str]] = {
    TaskCompleted: "completed",
    TaskFailed: "failed",
    TaskBlocked: "blocked",
    TaskCancelled: "cancelled",
}


async def build(app: App) -> None:
    """Wire one executor; when this returns it takes runs."""
    config = app.config.section(SECTION, Config)
    bus, clock = app.bus, app.clock
    watch = LlmWatch(clock.monotonic_s())
    await bus.subscribe(LLM_HEALTH, lambda message: watch.take(message.data, clock.monotonic_s()))

    def time_command(_now_ms: int = 0) -> RunCommand:
        return TakeTime(llm_alive=watch.alive(clock.monotonic_s()))

    book, budgets, caught_up = await _follow_planner(bus)
    lua = LuaHost(children=config.lua_children, metrics=app.metrics)
    await lua.start()
    app.on_stop(lua.stop)
    effects = RunEffects(
        bus=bus,
        nodes=await app.bus_as(NODES),
        lua=lua,
        book=book,
        budgets=budgets,
        clock=clock,
        log=app.log,
        observe=lambda kind, outcome, seconds: app.metrics.observe(
            "htdag_effect_seconds", seconds, kind=kind, outcome=outcome
        ),
        bodies_max=config.bodies_max,
        lua_children=config.lua_children,
    )
    app.on_stop(effects.stop)
    codec: CommitCodec[RunEvent] = CommitCodec(RunEvent)
    store = JetStreamEventStore(bus, EVENTS_EXECUTOR)
    host: ActorHost[RunCommand, Run, RunEvent] = ActorHost(
        service="executor",
        aggregate="run",
        decider=_decider(app, config, time_command),
        codec=codec,
        store=store,
        clock=clock,
        ids=app.ids,
        effects=effects,
        timers=JetStreamTimers(bus, "executor", "run"),
        snapshots=_snapshots(app),
        observer=_Observer(app, codec),
        limits=HostLimits(
            mailbox_messages_max=config.mailbox_messages_max,
            actors_max=config.actors_max,
            idle_s=config.idle_s,
            ended_weight_max=config.ended_tasks_max,
            commit_bytes_max=bus.payload_max - HEADERS_BYTES,
            snapshot_every_events=config.snapshot_every_events,
        ),
    )
    await caught_up()
    RunVerbs(host=host, bus=bus, store=store, codec=codec, book=book, clock=clock, ids=app.ids).bind(app)
    grants = Grants(bus, clock, config.approval_keys)
    boxes = Mailboxes(bus, host, app.metrics, app.log, app.spawn, time_command, grants.check)
    ranks = await _take_input(app, config, host, boxes)
    sleepers = Sleepers(store, bus, clock, app.log, held=host.holds, alone=lambda: not any(ranks))
    _ = app.spawn(sleepers.watch(), "sleepers")
    _ = app.spawn(_housekeeping(app, host), "housekeeping")


def _decider(app: App, config: Config, time_command: Callable[[int], RunCommand]) -> Decider[RunCommand, Run, RunEvent]:
    gating = Gating(config.auto_admin, config.approval_timeout_ms)
    if gating.auto_admin:
        app.log.warning("auto_admin", hint="admin tasks start without the approval of a human")
    return dataclasses.replace(RUN, time_command=time_command, advance=partial(advance, gating=gating))


async def _follow_planner(bus: Bus) -> tuple[StrategyBook, EpicBudgets, Callable[[], Awaitable[None]]]:
    """What the planner's log says of strategies and of budgets, and a way to wait until all of it was read."""
    book, budgets = StrategyBook(), EpicBudgets(bus)
    followers = (
        await bus.follow(EVENTS_PLANNER, events("planner", "strategy", "*"), book.take),
        await bus.follow(EVENTS_PLANNER, events("planner", "epic", "*"), budgets.take, headers_only=True),
    )

    async def caught_up() -> None:
        async with asyncio.timeout(BOOK_WAIT_S):
            for follower in followers:
                await follower.caught_up.wait()

    return book, budgets, caught_up


def _snapshots(app: App) -> JetStreamSnapshots[Run]:
    return JetStreamSnapshots(
        app.bus,
        format_id=snapshot.FORMAT,
        dump=snapshot.dump,
        restore=snapshot.restore,
        bytes_max=app.bus.payload_max // 2,
        every=snapshot.events_between,
        log=lambda text: app.log.warning("snapshot", detail=text),
    )


async def _take_input(
    app: App, config: Config, host: ActorHost[RunCommand, Run, RunEvent], mailboxes: Mailboxes
) -> list[int]:
    """Pull the partitions, those that are ours by placement first, and the fired timers.

    Returns the rank in each partition, which changes as executors come and go; all 0 while there is no other.
    """
    pullers: list[Puller] = []
    known: list[int] = []
    for consumer in CONSUMERS:
        if consumer.owner == "executor" and consumer.stream != TIMERS:
            pullers.append(
                await app.bus.pull(consumer, mailboxes.take_command, credit=config.partition_credit, priority=0)
            )
    timers = next(one for one in CONSUMERS if one.owner == "executor" and one.stream == TIMERS)
    fired = await app.bus.pull(timers, mailboxes.take_timer, credit=config.partition_credit)

    def on_ranks(ranks: tuple[int, ...]) -> None:
        known[:] = ranks
        for puller, rank in zip(pullers, ranks, strict=True):
            puller.priority = rank

    async def drain() -> None:
        # What the broker has sent already is taken in: thrown away, it would wait for its acknowledgement deadline.
        try:
            await asyncio.gather(*(puller.drain() for puller in (*pullers, fired)))
        except TimeoutError:
            app.log.warning("drain_cut", hint="what was on its way comes again after its deadline")
        await host.drain()
        await app.bus.flush()

    app.on_drain(drain)
    _ = app.spawn(Placement(app.bus, app.clock, "executor", app.instance, on_ranks).run(), "placement")
    _ = app.spawn(mailboxes.keep_alive(), "keep-alive")
    return known


async def _housekeeping(app: App, host: ActorHost[RunCommand, Run, RunEvent]) -> None:
    """Forget actors at rest, and say how many there are."""
    while True:
        await asyncio.sleep(PASSIVATE_EVERY_S)
        tidy(app.metrics, host)
        running = sum(run.status == "running" for run in host.states().values())
        app.metrics.set("htdag_runs_running", running)


class _Observer:
    """What the host sees, as metrics and log lines."""

    def __init__(self, app: App, codec: CommitCodec[RunEvent]) -> None:
        self._metrics, self._log = app.metrics, app.log
        # Found once: this is the hot path.
        self._stored = app.metrics.counter("htdag_commits_total", stream=EVENTS_EXECUTOR, outcome="stored")
        self._seconds = app.metrics.histogram("htdag_commit_seconds", stream=EVENTS_EXECUTOR)
        self._appended = {
            kind: app.metrics.counter("htdag_events_appended_total", stream=EVENTS_EXECUTOR, type=tag)
            for kind, tag in codec.tags.items()
        }
        self._outcomes = {
            kind: app.metrics.counter("htdag_tasks_total", outcome=outcome) for kind, outcome in _TASK_OUTCOMES.items()
        }

    def committed(self, events: Sequence[RunEvent], seconds: float) -> None:
        """A commit was acknowledged."""
        self._stored(1)
        self._seconds(seconds)
        counts: dict[type, int] = {}
        for event in events:
            kind = type(event)
            counts[kind] = counts.get(kind, 0) + 1
        for kind, count in counts.items():
            self._appended[kind](count)
            if kind in self._outcomes:
                self._outcomes[kind](count)
        if RunEnded in counts:
            ended = next(event for event in events if isinstance(event, RunEnded))
            self._metrics.inc("htdag_runs_total", outcome=ended.status)

    def conflict(self) -> None:
        """Somebody else wrote first."""
        self._metrics.inc("htdag_commits_total", stream=EVENTS_EXECUTOR, outcome="conflict")
        self._metrics.inc("htdag_actor_conflicts_total", aggregate="run")

    def failed(self, actor_id: str, error: BaseException) -> None:
        """A turn broke."""
        self._metrics.inc("htdag_commits_total", stream=EVENTS_EXECUTOR, outcome="failed")
        self._log.error("turn_failed", run_id=actor_id, exc_info=error)
