"""A worker on a real broker, with a model that counts its calls and answers when it is told to."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from contracts.errors import Rejected
from contracts.streams import EVENTS_LLM_WORKER, LLM_REQUESTS
from contracts.subjects import llm_request, model_of
from services.llm_worker.breaker.breakers import Breakers
from services.llm_worker.cache import Cache
from services.llm_worker.calling import Caller
from services.llm_worker.compile import compile_request
from services.llm_worker.config import Config
from services.llm_worker.fallback import Fallbacks
from services.llm_worker.flight import Flight, Waiter
from services.llm_worker.journal import Journal, Key
from services.llm_worker.judging.judge import Judge
from services.llm_worker.ledger.book import Book
from services.llm_worker.ledger.cashier import Cashier
from services.llm_worker.ledger.decider import LEDGER
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.ledger.opening import CODEC
from services.llm_worker.ledger.past import Past
from services.llm_worker.models import ModelTable, Resolved
from services.llm_worker.prices import Prices
from services.llm_worker.providers.protocol import Call, Delta, Finish, Piece, TokensUsed
from services.llm_worker.providers.table import ProviderTable
from services.llm_worker.redelivery import REQUESTS
from services.llm_worker.resolving import Resolver
from services.llm_worker.second_asking import SecondAsking
from services.llm_worker.unjudged import Unjudged
from services.llm_worker.worker import CONSUMER, Worker
from services.runtime.bus import Bus
from services.runtime.clock import SystemClock
from services.runtime.ids import CountingIds
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.metrics import Metrics
from services.runtime.ports import Observer
from services.runtime.pull import Delivery, Puller

LIFTED = LimitsConfig(usd_per_day=0, requests_per_minute=0, concurrent=0)


class Gate:
    """A provider that waits until `open` is set, model by model when it is told so."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.open = asyncio.Event()
        self.always_open: set[str] = set()
        self.failing: dict[str, str] = {}
        self.output = "done"

    def missing(self, resolved: Resolved) -> str:
        return ""

    async def close(self) -> None:
        return None

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        self.calls.append(call.request.corr_id)
        if call.resolved.used in self.failing:
            raise Rejected(self.failing[call.resolved.used])
        if call.resolved.used not in self.always_open:
            await self.open.wait()
        yield Delta(self.output)
        yield TokensUsed(1, 1)
        yield Finish("stop")


class Crew:
    """One worker and everything it is made of."""

    def __init__(
        self, bus: Bus, config: Config | None = None, worker_id: str = "w1", observer: Observer | None = None
    ) -> None:
        config = config or Config(limits=LIFTED)
        self.bus, self.gate, self.metrics = bus, Gate(), Metrics()
        models = ModelTable(config, {})
        self.providers = ProviderTable(config, models, {})
        self.providers.put("mock", self.gate)
        self.journal = Journal(bus)
        log, clock, prices = structlog.get_logger(), SystemClock(), Prices()
        self.book = Book(
            store=JetStreamEventStore(bus, EVENTS_LLM_WORKER), decider=LEDGER, codec=CODEC, clock=clock, log=log,
            observer=observer,
        )  # fmt: skip
        self.unjudged = Unjudged(bus, clock, log)
        self.cashier = Cashier(
            book=self.book,
            past=Past(bus, CODEC),
            unjudged=self.unjudged,
            prices=prices,
            config=config,
            clock=clock,
            metrics=self.metrics,
            worker_id=worker_id,
        )
        self.writing = asyncio.get_running_loop().create_task(self.book.run())
        self.breakers = Breakers(
            bus=bus, config=config, clock=clock, metrics=self.metrics, log=log, worker_id=worker_id
        )
        self.judge = Judge(log)
        self.caller = Caller(
            bus=bus,
            providers=self.providers,
            prices=prices,
            breakers=self.breakers,
            fallbacks=Fallbacks(models, log),
            cache=Cache(bus, self.journal, log),
            config=config,
            clock=clock,
            metrics=self.metrics,
            log=log,
            cashier=self.cashier,
            judge=self.judge,
            second=SecondAsking(journal=self.journal, unjudged=self.unjudged, cashier=self.cashier, log=log),
            unjudged=self.unjudged,
        )
        self.resolver = Resolver(models)
        self.worker = Worker(
            bus=bus,
            journal=self.journal,
            caller=self.caller,
            resolver=self.resolver,
            config=config,
            clock=clock,
            ids=CountingIds(),
            metrics=self.metrics,
            log=log,
            worker_id=worker_id,
            cashier=self.cashier,
        )

    async def ask(self, corr_id: str, model: str = "mock", headers: dict[str, str] | None = None, **body: Any) -> int:
        """Store one request, and say where; `body` replaces what a good one holds."""
        whole = {"run_id": "r", "node_id": f"n-{corr_id}", "corr_id": corr_id, "input": INPUT, **body}
        msg_id = f"{corr_id}-{model}-{len(body)}"
        data = msgspec.json.encode(whole)
        stored = await self.bus.store(llm_request(model), data, stream=LLM_REQUESTS, msg_id=msg_id, headers=headers)
        return stored.seq

    async def delivered_again(self, seq: int) -> Flight:
        """The call of a stored request, when the broker gives that to this worker, too."""
        stored = await self.bus.at(LLM_REQUESTS, seq)
        assert stored is not None
        reply = f"$JS.ACK.{LLM_REQUESTS}.{CONSUMER.name}.2.{seq}.2.1790000000000000000.0"
        delivery = Delivery(cast("Puller", None), Msg(cast("Client", None), stored.subject, reply, stored.data))
        request = compile_request(
            stored.data, subject_model=model_of(stored.subject, REQUESTS), new_id=CountingIds().new,
            bytes_max=self.bus.payload_max,
        )  # fmt: skip
        key = Key(request.run_id, request.node_id, request.corr_id)
        return Flight(key, request, self.resolver.resolve(request), Waiter.of(delivery, request.run_id))

    async def answer(self, corr_id: str) -> dict[str, Any] | None:
        """The newest answer on the node of this call."""
        entry = await self.bus.last("HTDAG_LLM_RESP", f"htdag.v1.llm.resp.r.n-{corr_id}")
        return None if entry is None else msgspec.json.decode(entry.data)

    async def unsettled(self) -> int:
        """Requests that are not settled yet."""
        info = await self.bus.api(f"CONSUMER.INFO.{CONSUMER.stream}.{CONSUMER.name}")
        return int(info["num_pending"]) + int(info["num_ack_pending"])


INPUT = {"messages": [{"role": "user", "content": "Say hi"}]}
