"""The composition root of llm-worker: everything is wired here and nowhere else."""

import asyncio
import os
from typing import Final

from contracts.errors import Rejected
from contracts.subjects import LLM_CANCEL, LLM_DRAIN, LLM_HEALTH, LLM_ROLL
from services.llm_worker.backlog import Backlog
from services.llm_worker.breaker.breakers import Breakers
from services.llm_worker.cache import Cache
from services.llm_worker.calling import Caller
from services.llm_worker.config import SECTION, Config
from services.llm_worker.edge import Edge
from services.llm_worker.fallback import Fallbacks
from services.llm_worker.handlers import Handlers
from services.llm_worker.health import Heart
from services.llm_worker.initial_metrics import begin_series
from services.llm_worker.journal import Journal
from services.llm_worker.judging.judge import Judge
from services.llm_worker.ledger.opening import Opened, open_ledger
from services.llm_worker.load import watch_pending
from services.llm_worker.models import LOCAL, ModelTable
from services.llm_worker.prices import Prices
from services.llm_worker.providers.foreign import ForeignProvider
from services.llm_worker.providers.table import ProviderTable
from services.llm_worker.registry import Registry
from services.llm_worker.replaying import Replaying
from services.llm_worker.resolving import Resolver
from services.llm_worker.retiring import Retiring
from services.llm_worker.roll_call import call_the_roll, recall_the_gone
from services.llm_worker.second_asking import SecondAsking
from services.llm_worker.worker import CONSUMER, Worker
from services.runtime.app import App

SERVICE: Final = "llm-worker"
DRAIN_SHARE: Final = 0.8
"""Of the drain time, what calls under way may use; the rest is for saying goodbye."""
STOP_TAKING_S: Final = 1.0
GOODBYE_S: Final = 1.0


async def build(app: App) -> None:
    """Wire the service and begin."""
    config = app.config.section(SECTION, Config)
    environ = dict(os.environ)
    models = ModelTable(config, environ)
    models.check()
    begin_series(app.metrics, models)
    providers = ProviderTable(config, models, environ)
    providers.put("nats", ForeignProvider(app.bus, app.instance))
    app.on_stop(providers.close)
    journal, resolver = Journal(app.bus), Resolver(models)
    ledger = await open_ledger(app, config, Prices())
    breakers = Breakers(
        bus=app.bus, config=config, clock=app.clock, metrics=app.metrics, log=app.log, worker_id=app.instance
    )
    await breakers.start()
    caller = _caller(app, config, models, providers, journal, breakers, ledger)
    worker = Worker(
        bus=app.bus,
        journal=journal,
        caller=caller,
        resolver=resolver,
        config=config,
        clock=app.clock,
        ids=app.ids,
        metrics=app.metrics,
        log=app.log,
        worker_id=app.instance,
        cashier=ledger.cashier,
    )
    edge = _edge(app, config, journal, resolver, ledger)
    heart = _heart(app, config, models, caller, worker, ledger)
    registry = Registry(clock=app.clock, every_s=config.heartbeat_s)
    handlers = Handlers(
        bus=app.bus,
        models=models,
        providers=providers,
        journal=journal,
        registry=registry,
        flights=worker.flights,
        breakers=breakers,
        replaying=Replaying(app.bus, app.ids),
        prices=ledger.prices,
        withdrawals=worker.withdrawals,
        held=lambda corr_id: corr_id in ledger.book.state.open,
        backlog=Backlog(app.bus, journal, CONSUMER),
        log=app.log,
    )
    await ledger.serve(app, models=models, resolver=resolver, journal=journal, flights=worker.flights)
    await _begin(app, config, worker, edge, heart, registry, handlers)
    _say_what_answers(app, models, providers)
    if config.preload:
        await providers.embedded.load()


def _heart(app: App, config: Config, models: ModelTable, caller: Caller, worker: Worker, ledger: Opened) -> Heart:
    return Heart(
        bus=app.bus,
        clock=app.clock,
        worker_id=app.instance,
        models=models.ids(),
        in_flight=lambda: len(worker.flights),
        load=caller.load,
        limited=lambda: ledger.book.held_up,
        every_s=config.heartbeat_s,
        log=app.log,
    )


def _edge(app: App, config: Config, journal: Journal, resolver: Resolver, ledger: Opened) -> Edge:
    return Edge(
        bus=app.bus,
        journal=journal,
        resolver=resolver,
        config=config,
        ids=app.ids,
        log=app.log,
        reused=ledger.cashier.reused,
    )


def _caller(
    app: App,
    config: Config,
    models: ModelTable,
    providers: ProviderTable,
    journal: Journal,
    breakers: Breakers,
    ledger: Opened,
) -> Caller:
    judge = Judge(app.log)
    app.on_stop(judge.close)
    return Caller(
        bus=app.bus,
        providers=providers,
        prices=ledger.prices,
        breakers=breakers,
        fallbacks=Fallbacks(models, app.log),
        cache=Cache(app.bus, journal, app.log),
        config=config,
        clock=app.clock,
        metrics=app.metrics,
        log=app.log,
        cashier=ledger.cashier,
        judge=judge,
        second=SecondAsking(journal=journal, unjudged=ledger.unjudged, cashier=ledger.cashier, log=app.log),
        unjudged=ledger.unjudged,
    )


async def _begin(
    app: App, config: Config, worker: Worker, edge: Edge, heart: Heart, registry: Registry, handlers: Handlers
) -> None:
    app.handle("llm", "models", handlers.list_models)
    app.handle("llm", "reset", handlers.reset)
    app.handle("llm", "workers", handlers.list_workers)
    app.handle("llm", "replay", handlers.replay)
    app.handle("llm", "repeat", handlers.repeat)
    app.handle("llm", "tail", handlers.tail)
    app.handle("llm", "cancel", handlers.cancel)
    await app.bus.subscribe(LLM_CANCEL, handlers.cancel_here)
    await app.bus.subscribe(LLM_HEALTH, registry.take)
    await app.bus.subscribe(LLM_ROLL, heart.called)
    retiring = Retiring(worker_id=app.instance, heart=heart, worker=worker, edge=edge, log=app.log)
    await app.bus.subscribe(LLM_DRAIN, retiring.take)
    await worker.start()
    await edge.start()
    # A beat says "up" only when requests are really taken.
    await app.bus.flush()
    beating = app.spawn(heart.run(), "heartbeat")
    keeping = app.spawn(worker.keep_alive(), "keep-alive")
    _ = app.spawn(worker.withdrawals.watch(), "withdrawals")
    watching = app.spawn(watch_pending(app.bus, app.metrics, CONSUMER), "watch-pending")
    await recall_the_gone(app.bus, registry, app.log)
    await call_the_roll(app.bus, registry)

    async def drain() -> None:
        beating.cancel()
        heart.beat("draining")
        within_s = app.core.drain_s * DRAIN_SHARE
        await edge.stop(STOP_TAKING_S)
        # Together: a repeated request waits for the call that was there first.
        await asyncio.gather(worker.drain(within_s), edge.finish(within_s))
        heart.beat("down")
        keeping.cancel()
        watching.cancel()
        await heart.last_kept(GOODBYE_S)
        await app.bus.flush()

    app.on_drain(drain)


def _say_what_answers(app: App, models: ModelTable, providers: ProviderTable) -> None:
    """Once, at start: names that a local model stands in for, and a local model that is not there."""
    stand_ins = models.stand_ins()
    if stand_ins:
        app.log.warning(
            "stand_in_models",
            models={resolved.asked: resolved.used for resolved in stand_ins},
            hint="set ANTHROPIC_API_KEY or GEMINI_API_KEY to use the real ones",
        )
    local = models.resolve(LOCAL)
    missing = providers.of(local).missing(local)
    if missing:
        app.log.warning("model_missing", model=LOCAL, reason=missing, hint=Rejected("model_missing").kind.hint)
