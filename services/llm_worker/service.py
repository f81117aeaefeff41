"""The composition root of llm-worker: everything is wired here and nowhere else."""

import asyncio
import os
from typing import Final

from contracts.errors import Rejected
from contracts.subjects import LLM_CANCEL, LLM_HEALTH
from services.llm_worker.calling import Caller
from services.llm_worker.config import SECTION, Config
from services.llm_worker.edge import Edge
from services.llm_worker.handlers import Handlers
from services.llm_worker.health import Heart, Registry
from services.llm_worker.journal import Journal
from services.llm_worker.ledger.opening import open_ledger
from services.llm_worker.models import LOCAL, ModelTable
from services.llm_worker.prices import Prices
from services.llm_worker.providers.table import ProviderTable
from services.llm_worker.resolving import Resolver
from services.llm_worker.worker import Worker
from services.runtime.app import App

SERVICE: Final = "llm-worker"
DRAIN_SHARE: Final = 0.8
"""Of the drain time, what calls under way may use; the rest is for saying goodbye."""
STOP_TAKING_S: Final = 1.0


async def build(app: App) -> None:
    """Wire the service and begin."""
    config = app.config.section(SECTION, Config)
    environ = dict(os.environ)
    models = ModelTable(config, environ)
    providers = ProviderTable(config, models, environ)
    app.on_stop(providers.close)
    journal, resolver, prices = Journal(app.bus), Resolver(models), Prices()
    ledger = await open_ledger(app, config, prices)
    caller = Caller(
        bus=app.bus,
        providers=providers,
        prices=prices,
        config=config,
        clock=app.clock,
        metrics=app.metrics,
        log=app.log,
        cashier=ledger.cashier,
    )
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
    edge = Edge(bus=app.bus, journal=journal, resolver=resolver, config=config, ids=app.ids, log=app.log)
    heart = Heart(
        bus=app.bus,
        clock=app.clock,
        worker_id=app.instance,
        models=models.ids(),
        in_flight=lambda: len(worker.flights),
        every_s=config.heartbeat_s,
    )
    registry = Registry(clock=app.clock, every_s=config.heartbeat_s)
    handlers = Handlers(
        bus=app.bus, models=models, providers=providers, journal=journal, registry=registry, flights=worker.flights
    )
    await ledger.serve(app, models=models, resolver=resolver, journal=journal, flights=worker.flights)
    await _begin(app, config, worker, edge, heart, registry, handlers)
    _say_what_answers(app, models, providers)
    if config.preload:
        await providers.embedded.load()


async def _begin(
    app: App, config: Config, worker: Worker, edge: Edge, heart: Heart, registry: Registry, handlers: Handlers
) -> None:
    app.handle("llm", "models", handlers.list_models)
    app.handle("llm", "workers", handlers.list_workers)
    app.handle("llm", "replay", handlers.replay)
    app.handle("llm", "tail", handlers.tail)
    app.handle("llm", "cancel", handlers.cancel)
    await app.bus.subscribe(LLM_CANCEL, handlers.cancel_here)
    await app.bus.subscribe(LLM_HEALTH, registry.take)
    await worker.start()
    await edge.start()
    # A beat says "up" only when requests are really taken.
    await app.bus.flush()
    beating = app.spawn(heart.run(), "heartbeat")
    keeping = app.spawn(worker.keep_alive(), "keep-alive")

    async def drain() -> None:
        beating.cancel()
        heart.beat("draining")
        within_s = app.core.drain_s * DRAIN_SHARE
        await edge.stop(STOP_TAKING_S)
        # Together: a repeated request waits for the call that was there first.
        await asyncio.gather(worker.drain(within_s), edge.finish(within_s))
        heart.beat("down")
        keeping.cancel()
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
