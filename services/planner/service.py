"""The composition root of the planner: everything is wired here and nowhere else."""

import asyncio
from typing import Any, Final

from contracts.epic import EpicEvent
from contracts.errors import Rejected
from contracts.requests import Nothing
from contracts.strategy import StrategyEvent
from contracts.streams import EVENTS_PLANNER
from services.planner.config import Config
from services.planner.epic.decider import EPIC, EpicCommand
from services.planner.epic.state import Epic
from services.planner.epic_list import EpicList
from services.planner.epic_reading import EPIC_CODEC
from services.planner.epic_spending import EpicSpending
from services.planner.hand_overs import HandOvers
from services.planner.handlers.epics import EpicHandlers
from services.planner.handlers.goals import GoalHandlers
from services.planner.handlers.strategies import StrategyHandlers
from services.planner.handlers.tasks import TaskHandlers
from services.planner.observer import CommitObserver
from services.planner.projections import Projections
from services.planner.reads import Reads
from services.planner.strategy.decider import STRATEGY, StrategyCommand
from services.planner.strategy.state import Strategy
from services.planner.strategy_book import STRATEGY_CODEC, StrategyBook
from services.planner.sweep import Sweep
from services.planner.unreadable import Unreadable
from services.runtime.actor import ActorHost
from services.runtime.app import App
from services.runtime.host_limits import HEADERS_BYTES, HostLimits
from services.runtime.housekeeping import tidy
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.lifecycle import Log
from services.runtime.lua.host import LuaHost
from services.runtime.rpc import Caller

HOUSEKEEPING_S: Final = 10.0
IDLE_S: Final = 3_600.0
ACTORS_MAX: Final = 2_000
_OWN_LOG_UNREADABLE: Final = frozenset({"poison", "internal"})
SEEDER: Final = Caller(by="planner", corr="seed", message_id="seed", reply="", headers={})


async def build(app: App) -> None:
    """Wire the planner, seed the shipped strategies and answer its verbs."""
    config = app.config.section("planner", Config)
    lua = LuaHost(children=config.lua_children, metrics=app.metrics)
    await lua.start()
    app.on_stop(lua.stop)

    book, epic_list, spending, unreadable = StrategyBook(), EpicList(), EpicSpending(), Unreadable(app.log)
    projections = Projections(app.bus, app.metrics, unreadable)
    await projections.start(book, epic_list, spending)
    app.on_ready("projections", projections.not_ready)
    hand_overs = HandOvers(app.bus, app.log)
    app.on_stop(hand_overs.stop)
    epics, strategies = _hosts(app, hand_overs)
    app.on_drain(hand_overs.drain)
    app.on_drain(epics.drain)
    app.on_drain(strategies.drain)
    reads = Reads(app.bus, epic_list, unreadable)

    strategy_handlers = StrategyHandlers(host=strategies, book=book, lua=lua, clock=app.clock)
    await _seed(strategy_handlers, app.log)
    sweep = Sweep(app.bus, reads, hand_overs, app.clock, unreadable)
    repeated = await sweep.begin()
    if repeated:
        app.log.info("hand_overs_repeated", count=repeated)
    _ = app.spawn(_sweep_on(sweep, config.sweep_s, app.log), "sweep")
    _ = app.spawn(_housekeeping(app, projections, epics, strategies), "housekeeping")

    _bind_strategies(app, strategy_handlers)
    goals = GoalHandlers(
        host=epics, book=book, lua=lua, reads=reads, epic_list=epic_list, hand_overs=hand_overs, ids=app.ids,
        plan_timeout_s=config.plan_timeout_s,
    )  # fmt: skip
    app.handle("goal", "submit", goals.submit)
    app.handle("goal", "plan", goals.plan)
    tasks = TaskHandlers(host=epics, book=book, reads=reads, epic_list=epic_list, hand_overs=hand_overs)
    app.handle("task", "enqueue", tasks.enqueue)
    app.handle("task", "status", tasks.status)
    app.handle("task", "result", tasks.result)
    app.handle("task", "graph", tasks.graph)
    epic_handlers = EpicHandlers(host=epics, reads=reads, epic_list=epic_list, spending=spending, ids=app.ids)
    app.handle("epic", "create", epic_handlers.create)
    app.handle("epic", "update", epic_handlers.update)
    app.handle("epic", "get", epic_handlers.get)
    app.handle("epic", "list", epic_handlers.page)


def _hosts(
    app: App, hand_overs: HandOvers
) -> tuple[ActorHost[EpicCommand, Epic, EpicEvent], ActorHost[StrategyCommand, Strategy, StrategyEvent]]:
    store = JetStreamEventStore(app.bus, EVENTS_PLANNER)
    # A plan is one event: it may be as large as a message may be. Epics are few, and long to fold: they stay.
    limits = HostLimits(commit_bytes_max=app.bus.payload_max - HEADERS_BYTES, idle_s=IDLE_S, actors_max=ACTORS_MAX)
    epics = ActorHost(
        service="planner", aggregate="epic", decider=EPIC, codec=EPIC_CODEC, store=store, clock=app.clock, ids=app.ids,
        effects=hand_overs, observer=CommitObserver("epic", EPIC_CODEC.tags, app.metrics, app.log), limits=limits,
    )  # fmt: skip
    strategies = ActorHost(
        service="planner", aggregate="strategy", decider=STRATEGY, codec=STRATEGY_CODEC, store=store, clock=app.clock,
        ids=app.ids, observer=CommitObserver("strategy", STRATEGY_CODEC.tags, app.metrics, app.log), limits=limits,
    )  # fmt: skip
    return epics, strategies


def _bind_strategies(app: App, handlers: StrategyHandlers) -> None:
    app.handle("strategy", "put", handlers.put)
    app.handle("strategy", "get", handlers.get)
    app.handle("strategy", "list", handlers.show_all)
    app.handle("strategy", "activate", handlers.activate)
    app.handle("strategy", "rollback", handlers.rollback)
    app.handle("strategy", "try", handlers.try_stage)
    app.handle("strategy", "choose", handlers.choose)
    app.handle("strategy", "seed", handlers.seed)


async def _seed(handlers: StrategyHandlers, log: Log) -> None:
    try:
        await handlers.seed(Nothing(), SEEDER)
    except Rejected as error:
        if error.code not in _OWN_LOG_UNREADABLE:
            raise
        refusal = error
    else:
        return
    # A shipped strategy's own log is broken: that one cannot be changed, everything else works.
    log.error("strategy_not_seeded", code=refusal.code, **refusal.detail)


async def _sweep_on(sweep: Sweep, every_s: float, log: Log) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await sweep.run()
        except Rejected as error:
            # The broker is away: what is not looked at now is looked at next time.
            log.warning("sweep_failed", code=error.code, reason=error.message)


async def _housekeeping(app: App, projections: Projections, *hosts: ActorHost[Any, Any, Any]) -> None:
    """Forget actors at rest, and say how many there are and how far projections are behind."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_S)
        tidy(app.metrics, *hosts)
        try:
            await projections.measure()
        except Rejected as error:
            app.log.warning("lag_not_measured", code=error.code, reason=error.message)
