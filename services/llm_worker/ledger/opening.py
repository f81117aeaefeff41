"""Wires the ledger: its log, this worker's copy of it, and whoever works with it."""

from collections.abc import Sequence
from typing import NamedTuple

from contracts.codec import CommitCodec
from contracts.ledger import LedgerEvent, LlmPaid
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.config import Config
from services.llm_worker.flight import Flights
from services.llm_worker.journal import Journal
from services.llm_worker.ledger import snapshot
from services.llm_worker.ledger.abandoned import known_usd_of
from services.llm_worker.ledger.book import SUBJECT, Book
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.ledger.decider import LEDGER
from services.llm_worker.ledger.orphans import Orphans
from services.llm_worker.ledger.past import Past
from services.llm_worker.ledger.state import Held, Ledger, Spent, day_account, day_of
from services.llm_worker.ledger.views import LedgerVerbs
from services.llm_worker.models import ModelTable
from services.llm_worker.prices import Prices
from services.llm_worker.resolving import Resolver
from services.llm_worker.unjudged import Unjudged
from services.runtime.app import App
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.metrics import Metrics
from services.runtime.snapshots import JetStreamSnapshots

CODEC: CommitCodec[LedgerEvent] = CommitCodec(LedgerEvent)


class Observer:
    """Counts the ledger's commits, and what the calls in them used and cost: paid is what stands in the ledger."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def committed(self, events: Sequence[LedgerEvent], seconds: float) -> None:
        """See services.runtime.ports.Observer."""
        for event in events:
            self._metrics.inc("htdag_events_appended_total", stream=EVENTS_LLM_WORKER, type=CODEC.tags[type(event)])
            if isinstance(event, LlmPaid):
                self._paid(event)
        self._metrics.inc("htdag_commits_total", stream=EVENTS_LLM_WORKER, outcome="stored")
        self._metrics.observe("htdag_commit_seconds", seconds, stream=EVENTS_LLM_WORKER)

    def _paid(self, paid: LlmPaid) -> None:
        count, provider, model, cost = self._metrics.inc, paid.provider, paid.model, paid.cost_usd_micros
        count("htdag_llm_tokens_total", paid.prompt_tokens, provider=provider, model=model, type="input")
        count("htdag_llm_tokens_total", paid.completion_tokens, provider=provider, model=model, type="output")
        for one in paid.abandoned:
            count("htdag_llm_tokens_total", one.tokens, provider=one.provider, model=one.model, type="abandoned")
        if cost is None:
            count("htdag_llm_cost_unknown_total", provider=provider, model=model)
            return
        for one in paid.abandoned:
            count("htdag_llm_cost_usd_micros_total", one.usd_micros or 0, provider=one.provider, model=one.model)
        own = cost - known_usd_of(paid.abandoned)
        if own:
            count("htdag_llm_cost_usd_micros_total", own, provider=provider, model=model)

    def conflict(self) -> None:
        """See services.runtime.ports.Observer."""
        self._metrics.inc("htdag_commits_total", stream=EVENTS_LLM_WORKER, outcome="conflict")
        self._metrics.inc("htdag_actor_conflicts_total", aggregate="ledger")

    def failed(self, actor_id: str, error: BaseException) -> None:
        """See services.runtime.ports.Observer."""
        self._metrics.inc("htdag_commits_total", stream=EVENTS_LLM_WORKER, outcome="failed")


class Opened(NamedTuple):
    """The ledger of one worker."""

    book: Book
    cashier: Cashier
    unjudged: Unjudged
    prices: Prices
    allow_unpriced: bool

    async def serve(
        self, app: App, *, models: ModelTable, resolver: Resolver, journal: Journal, flights: Flights
    ) -> None:
        """Answer the verbs, and look after what dead workers left."""
        verbs = LedgerVerbs(
            bus=app.bus,
            cashier=self.cashier,
            codec=CODEC,
            models=models,
            resolver=resolver,
            prices=self.prices,
            clock=app.clock,
            ids=app.ids,
            allow_unpriced=self.allow_unpriced,
            log=app.log,
        )
        await verbs.start()
        app.handle("llm", "limits", verbs.limits)
        app.handle("llm", "ledger", verbs.ledger)
        app.handle("llm", "estimate", verbs.estimate)
        orphans = Orphans(
            bus=app.bus,
            cashier=self.cashier,
            journal=journal,
            unjudged=self.unjudged,
            flights=flights,
            clock=app.clock,
            metrics=app.metrics,
            log=app.log,
        )
        _ = app.spawn(orphans.run(), "orphans")


async def open_ledger(app: App, config: Config, prices: Prices) -> Opened:
    """Fold the log and begin to write. Raises Rejected when the broker is away."""
    metrics, clock = app.metrics, app.clock

    def changed() -> None:
        state, account = book.state, day_account(day_of(clock.now_ms()))
        metrics.set("htdag_llm_limiter_queue_depth", book.waiting)
        metrics.set("htdag_llm_ledger_open", len(state.open))
        metrics.set("htdag_llm_ledger_spent_usd_micros", state.spent.get(account, Spent()).usd_micros)
        metrics.set("htdag_llm_ledger_reserved_usd_micros", state.held.get(account, Held()).usd_micros)

    snapshots: JetStreamSnapshots[Ledger] = JetStreamSnapshots(
        app.bus,
        format_id=snapshot.FORMAT,
        dump=snapshot.dump,
        restore=snapshot.restore,
        bytes_max=app.bus.payload_max // 2,
        log=lambda text: app.log.warning("snapshot", detail=text),
    )
    book = Book(
        store=JetStreamEventStore(app.bus, EVENTS_LLM_WORKER),
        decider=LEDGER,
        codec=CODEC,
        clock=clock,
        log=app.log,
        snapshots=snapshots,
        observer=Observer(metrics),
        changed=changed,
    )
    await book.load()
    await app.bus.follow(EVENTS_LLM_WORKER, SUBJECT, book.hear, after=book.seq)
    _ = app.spawn(book.run(), "ledger")
    unjudged = Unjudged(app.bus, clock, app.log)
    cashier = Cashier(
        book=book,
        past=Past(app.bus, CODEC),
        unjudged=unjudged,
        prices=prices,
        config=config,
        clock=clock,
        metrics=metrics,
        worker_id=app.instance,
    )
    return Opened(book, cashier, unjudged, prices, config.limits.allow_unpriced)
