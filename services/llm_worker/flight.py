"""A call under way: one request, everybody who waits for its answer, and how it is stopped."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from contracts.commit import HEADER_REPLY
from contracts.ledger import Abandoned, LedgerEvent
from contracts.llm import HEADER_ANSWER_TO, HEADER_DEADLINE, LlmError, LlmRequest
from contracts.subjects import command
from services.llm_worker.journal import Key
from services.llm_worker.models import Resolved
from services.llm_worker.providers.protocol import TokensUsed
from services.llm_worker.unjudged import KeptAnswer
from services.runtime import telemetry
from services.runtime.event_store import Recorded
from services.runtime.pull import Delivery

CANCELLED_REMEMBERED_MAX: Final = 10_000
DEADLINE_DIGITS_MAX: Final = 16

Phase = Literal["waiting", "calling", "answered"]


class Waiter(NamedTuple):
    """One stored request and where its answer goes: an inbox, a run's mailbox, or nowhere but the journal."""

    delivery: Delivery
    reply: str
    answer_to: str
    deadline_at_ms: int

    @classmethod
    def of(cls, delivery: Delivery, run_id: str) -> "Waiter":
        """Who waits for the answer to `delivery`. A mailbox that is not the run's own is ignored."""
        answer_to = delivery.headers.get(HEADER_ANSWER_TO, "")
        if answer_to != command("executor", "run", run_id, "answer"):
            answer_to = ""
        until = delivery.headers.get(HEADER_DEADLINE, "")
        deadline_at_ms = int(until) if until.isdecimal() and len(until) <= DEADLINE_DIGITS_MAX else 0
        return cls(delivery, delivery.headers.get(HEADER_REPLY, ""), answer_to, deadline_at_ms)


class Flight:
    """One call and its waiters; several when the same request came more than once."""

    __slots__ = (
        "abandoned",
        "answered",
        "asked",
        "asked_of",
        "cancelled",
        "heard",
        "kept",
        "key",
        "phase",
        "request",
        "reserved",
        "resolved",
        "settled",
        "task",
        "took_s",
        "used",
        "used_guessed",
        "waiters",
    )

    def __init__(self, key: Key, request: LlmRequest, resolved: Resolved, first: Waiter) -> None:
        self.key, self.request, self.resolved = key, request, resolved
        self.asked_of = resolved
        """The model that was asked for; another one may answer instead, that is `resolved` then."""
        self.waiters = [first]
        self.cancelled = False
        self.asked = False
        """Whether a provider was asked: from then on no error of ours may have it asked again."""
        self.abandoned: tuple[Abandoned, ...] | None = None
        """What may be billed of other askings, by workers that are or seem gone; None until the ledger was asked."""
        self.answered: Recorded | None = None
        """The outcome, where another worker has journaled one while this one was busy with the call."""
        self.heard: KeptAnswer | None = None
        """What another worker heard for the call and did not see through: it is judged, and nobody is asked."""
        self.reserved = False
        """Whether this worker has held it in the ledger: whoever took it over counts its asking as abandoned."""
        self.settled: asyncio.Future[Sequence[LedgerEvent]] | None = None
        """Its payment, when that is written before the outcome is journaled."""
        self.kept = False
        """Whether the outcome is in the journal."""
        self.took_s: float | None = None
        self.used: TokensUsed | None = None
        """What a call used that was stopped or failed after its provider had begun to answer: it is paid."""
        self.used_guessed = False
        self.phase: Phase = "waiting"
        self.task: asyncio.Task[None] | None = None

    @property
    def request_seq(self) -> int:
        """Where the request that this call was made for is stored."""
        return self.waiters[0].delivery.seq if self.heard is None else self.heard.said.request_seq

    def has(self, heard: KeptAnswer) -> None:
        """Its provider has answered, whoever asked: the call is paid, and is to be seen through."""
        answer, self.heard, self.asked = heard.said.answer, heard, True
        usage = answer.usage
        self.used = TokensUsed(usage.prompt_tokens, usage.completion_tokens, answer.cost_usd_micros)
        self.used_guessed = heard.said.estimated

    def error(self, wire: dict[str, Any]) -> LlmError:
        """The outcome of this call as a failure; `wire` is the error as it is told."""
        return LlmError(*self.key, self.request.model_id, wire, self.request.attempt)

    def expired(self, now_ms: int) -> bool:
        """Whether everybody who asked has given up: then the call is not worth its price."""
        return all(0 < waiter.deadline_at_ms <= now_ms for waiter in self.waiters)

    @property
    def trace(self) -> str:
        """The trace the request belongs to, or an empty string."""
        return telemetry.extract(self.waiters[0].delivery.headers)

    @property
    def for_run(self) -> bool:
        """Whether a run waits: then the run alone decides whether to try again."""
        return any(waiter.answer_to for waiter in self.waiters)

    @property
    def asker(self) -> str:
        """Who takes turns with others, as far as anybody can tell: a run, or the connection of an inbox."""
        inbox = "" if self.for_run else self.waiters[0].reply.rpartition(".")[0]
        return inbox or self.key.run_id

    def cancel(self) -> bool:
        """Stop the call unless its answer is there already; False then."""
        if self.phase == "answered":
            return False
        if self.phase == "calling" and self.task is not None and not self.cancelled:
            self.task.cancel()
        self.cancelled = True
        return True


class Flights:
    """All calls of this worker, and the ids that were cancelled before their request came."""

    def __init__(self) -> None:
        self._by_corr: dict[str, Flight] = {}
        self._apart: set[Flight] = set()
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._by_corr) + len(self._apart)

    def of(self, corr_id: str) -> Flight | None:
        """The call of this id, if it is under way here."""
        return self._by_corr.get(corr_id)

    def all(self) -> list[Flight]:
        """Every call under way."""
        return [*self._by_corr.values(), *self._apart]

    def add(self, flight: Flight) -> None:
        """A call begins. One that was cancelled before says so at once."""
        flight.cancelled = flight.key.corr_id in self._cancelled
        self._by_corr[flight.key.corr_id] = flight
        self._empty.clear()

    def add_apart(self, flight: Flight) -> None:
        """A request that is refused is answered: no good request of the same id may share that."""
        self._apart.add(flight)
        self._empty.clear()

    def remove(self, flight: Flight) -> None:
        """A call ended; another one of the same id stays."""
        if self._by_corr.get(flight.key.corr_id) is flight:
            del self._by_corr[flight.key.corr_id]
        self._apart.discard(flight)
        if not len(self):
            self._empty.set()

    def cancel(self, corr_id: str) -> bool:
        """Stop a call; True when it ran here. Its id is remembered in case its request is still on its way."""
        self._cancelled[corr_id] = None
        if len(self._cancelled) > CANCELLED_REMEMBERED_MAX:
            self._cancelled.popitem(last=False)
        flight = self._by_corr.get(corr_id)
        return flight.cancel() if flight is not None else False

    async def wait_empty(self) -> None:
        """Wait until no call is under way; the caller sets the deadline."""
        await self._empty.wait()
