"""Any workers in any order, races, deaths and doubles: no limit is ever exceeded, nothing is paid twice or lost.

Several books write one log, as several workers do. A naive reader of that log, which knows nothing of the decider,
checks after every single event that what is spent and reserved is within every limit, and at the end that the books
agree with it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.codec import CommitCodec
from contracts.errors import Rejected
from contracts.ledger import Abandoned, Budget, LedgerEvent, LlmPaid, LlmReleased, LlmReserved, LlmTakenOver
from services.llm_worker.ledger.abandoned import known_usd_of, tokens_of
from services.llm_worker.ledger.book import Book
from services.llm_worker.ledger.decider import LEDGER, Release, Reserve
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.payment import Pay
from services.llm_worker.ledger.state import DAY_MS, Open, day_of
from services.runtime.clock import FixedClock
from services.runtime.event_store import Conflict, Recorded

CODEC: CommitCodec[LedgerEvent] = CommitCodec(LedgerEvent)
MODELS = ("dear", "cheap")
WAITS_S = 0.4
"""So long a call waits for a limit, in real time; the clock of the books runs on by hours meanwhile."""


class Log:
    """An event store in memory that lets others go first, loses acknowledgements and is away now and then."""

    def __init__(self, chance: random.Random) -> None:
        self.records: list[Recorded] = []
        self.books: list[Book] = []
        self._chance = chance

    async def append(
        self, subject: str, parts: Sequence[bytes], *, expect: int, msg_id: str, headers: Mapping[str, str]
    ) -> int:
        for _ in range(self._chance.randint(0, 3)):
            await asyncio.sleep(0)
        if self._chance.random() < 0.03:
            raise Rejected("nats_unavailable")
        if expect != len(self.records):
            raise Conflict(len(self.records))
        record = Recorded(len(self.records) + 1, subject, parts[0], headers)
        self.records.append(record)
        for book in self.books:
            if self._chance.random() < 0.7:  # the others hear of it late, or never
                book.hear(record)
        if self._chance.random() < 0.03:
            raise Rejected("nats_unavailable")  # stored, but nobody said so
        return record.seq

    async def read(self, _subject: str, after: int = 0) -> AsyncIterator[Recorded]:
        for record in self.records[after:]:
            await asyncio.sleep(0)
            yield record


class Naive:
    """Adds up what the log says, one event after the other."""

    def __init__(self, limits: Limits, model_limits: Limits, budgets: Mapping[str, Budget]) -> None:
        self.limits, self.model_limits, self.budgets = limits, model_limits, budgets
        self.open: dict[str, LlmReserved] = {}
        self.abandoned: dict[str, list[Abandoned]] = {}
        self.paid: dict[tuple[str, int], LlmPaid] = {}
        self.days: dict[str, int] = {}
        self.times: list[tuple[int, str]] = []

    def take(self, event: LedgerEvent) -> None:
        if isinstance(event, LlmReserved):
            assert event.corr_id not in self.open
            self.open[event.corr_id] = event
            self.abandoned[event.corr_id] = event.abandoned
            self.times.append((event.at_ms, event.model))
        elif isinstance(event, LlmPaid):
            request = (event.corr_id, event.request_seq)
            assert request not in self.paid, "paid twice"
            self.paid[request] = event
            held = self.open.pop(event.corr_id, None)
            assert held is not None, "paid without a reservation"
            assert held.request_seq == event.request_seq, "paid from what is held for another request"
        elif isinstance(event, LlmReleased):
            assert self.open.pop(event.corr_id, None) is not None, "released twice"
        elif isinstance(event, LlmTakenOver):
            assert len(event.abandoned) == bool(self.open[event.corr_id].billed_by), "who bills it is held"
            self.abandoned[event.corr_id] = event.abandoned
            self.times.append((event.at_ms, self.open[event.corr_id].model))
        self.check()

    def check(self) -> None:
        for day in {day_of(event.at_ms) for event in self.open.values()} | {event.day for event in self.paid.values()}:
            for limit, model in ((self.limits.usd_micros, ""), (self.model_limits.usd_micros, "dear")):
                held = sum(
                    (event.usd_micros or 0) + sum(one.usd_micros or 0 for one in self.abandoned[event.corr_id])
                    for event in self.open.values()
                    if day_of(event.at_ms) == day and model in ("", event.model)
                )
                spent = sum(
                    event.cost_usd_micros or 0
                    for event in self.paid.values()
                    if event.day == day and model in ("", event.model)
                )
                assert not limit or spent + held <= limit, (day, spent, held, limit)
        for key, budget in self.budgets.items():
            open_ = [event for event in self.open.values() if key in event.budgets]
            paid = [event for event in self.paid.values() if key in event.budgets]
            besides = [one for event in open_ for one in self.abandoned[event.corr_id]]
            usd = sum(event.usd_micros or 0 for event in open_) + known_usd_of(besides)
            usd += sum(event.cost_usd_micros or 0 for event in paid)
            tokens = sum(event.tokens for event in open_) + tokens_of(besides) + sum(event.tokens for event in paid)
            assert budget.usd_micros is None or usd <= budget.usd_micros
            assert budget.tokens is None or tokens <= budget.tokens
        assert not self.limits.concurrent or len(self.open) <= self.limits.concurrent
        dear = sum(event.model == "dear" for event in self.open.values())
        assert not self.model_limits.concurrent or dear <= self.model_limits.concurrent
        newest = max((at for at, _ in self.times), default=0)
        last_minute = sum(at > newest - 60_000 for at, _ in self.times)
        assert not self.limits.per_minute or last_minute <= self.limits.per_minute


class Story:
    """So many workers, each with its book; each call is answered, fails, or loses its worker."""

    def __init__(self, seed: int, limits: Limits, model_limits: Limits, budget: Budget, workers: int) -> None:
        self.chance = random.Random(seed)
        self.log, self.clock = Log(self.chance), FixedClock()
        self.limits, self.model_limits, self.budget = limits, model_limits, budget
        self.answered: dict[tuple[str, int], int] = {}
        self.refused: dict[str, str] = {}
        self.orphans: set[str] = set()
        """Reserved by a worker that died, and refused by the next one: what was reserved is released by its age."""
        self.books = [self.book() for _ in range(workers)]
        self.log.books = self.books

    def book(self) -> Book:
        store: Any = self.log
        return Book(store=store, decider=LEDGER, codec=CODEC, clock=self.clock, log=structlog.get_logger())

    def wish(self, corr_id: str, worker: int) -> Reserve:
        chance = random.Random(f"{corr_id}")
        model = chance.choice(MODELS)
        return Reserve(
            corr_id,
            f"w{worker}",
            1,
            model,
            chance.randint(1, 50),
            chance.randint(0, 40),
            60_000,
            self.limits,
            self.model_limits if model == "dear" else Limits(),
            (self.budget,) if chance.random() < 0.5 else (),
            billed_by=chance.choice(["", "openai"]),
        )

    async def call(self, corr_id: str, worker: int) -> None:
        """One call, with the deaths of its workers."""
        loop, died = asyncio.get_running_loop(), False
        while True:
            wish = self.wish(corr_id, worker)
            try:
                await self.books[worker].ask(wish, loop.time() + WAITS_S)
            except Rejected as error:
                if error.code == "nats_unavailable":
                    continue
                if died and await self.paid_unheard(wish, worker):
                    return
                self.refused[corr_id] = error.code
                if died:
                    self.orphans.add(corr_id)
                # A reservation whose acknowledgement was lost is seen to by whoever looks after orphans.
                await self.books[worker].ask(Release(corr_id, f"w{worker}", error.code))
                return
            await asyncio.sleep(0)
            fate = self.chance.random()
            if fate < 0.2:
                worker, died = self.chance.randrange(len(self.books)), True  # the request comes to another one
                continue
            abandoned = self.books[worker].state.open[corr_id].abandoned
            if fate < 0.35 and abandoned:
                self.answered[corr_id, 1] = known_usd_of(abandoned)
                await self.books[worker].ask(told(wish, 0, 0, abandoned))
                return
            if fate < 0.35:
                await self.books[worker].ask(Release(corr_id, f"w{worker}", "provider_error"))
                self.refused[corr_id] = "provider_error"
                return
            cost = self.chance.randint(0, wish.usd_micros or 0)
            self.answered[corr_id, 1] = cost + known_usd_of(abandoned)
            bill = told(wish, self.chance.randint(0, wish.tokens), cost, abandoned)
            payers = [worker, *(self.chance.randrange(len(self.books)) for _ in range(self.chance.randint(0, 2)))]
            await asyncio.gather(*(self.books[one].ask(bill) for one in payers))
            if self.chance.random() < 0.3:
                await self.ask_anew(wish, bill)
            return

    async def ask_anew(self, first: Reserve, bill: Pay) -> None:
        """Another request of the same call, and while it is under way the first one comes again and is paid again."""
        worker, other = (self.chance.randrange(len(self.books)) for _ in range(2))
        wish, book = first._replace(worker_id=f"w{worker}", request_seq=2), self.books[worker]
        try:
            await book.ask(wish, asyncio.get_running_loop().time() + WAITS_S)
        except Rejected as error:
            await book.ask(Release(wish.corr_id, wish.worker_id, error.code, request_seq=2))
            return
        await self.books[other].ask(bill)
        cost = self.chance.randint(0, wish.usd_micros or 0)
        self.answered[wish.corr_id, 2] = cost
        await book.ask(told(wish, self.chance.randint(0, wish.tokens), cost, ()))

    async def paid_unheard(self, wish: Reserve, worker: int) -> bool:
        """A call that another worker had begun ends here without being begun again: whether that is paid."""
        left = await self.now_open(wish.corr_id)
        if left is None or not left.unheard or left.worker_id == wish.worker_id:
            return False
        self.answered[wish.corr_id, 1] = known_usd_of(left.unheard)
        await self.books[worker].ask(told(wish, 0, 0, left.unheard))
        return True

    async def now_open(self, corr_id: str) -> Open | None:
        """What the log says of a call: what was written long ago every worker has heard."""
        reader = self.book()
        await reader.load()
        return reader.state.open.get(corr_id)

    async def tell(self, calls: int) -> None:
        tasks = [asyncio.create_task(book.run()) for book in self.books]
        passing = asyncio.create_task(self.pass_time())
        try:
            async with asyncio.timeout(30):
                await asyncio.gather(
                    *(self.call(f"c{number}", self.chance.randrange(len(self.books))) for number in range(calls))
                )
        finally:
            for task in (*tasks, passing):
                task.cancel()

    async def pass_time(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            self.clock.advance(self.chance.choice([1, 500, 20_000, 61_000, DAY_MS // 3]))


def told(wish: Reserve, tokens: int, cost: int, abandoned: Sequence[Abandoned]) -> Pay:
    """The bill of a call as its worker writes it down."""
    return Pay(
        wish.corr_id, wish.worker_id, wish.request_seq, wish.model, wish.billed_by or "mock", tokens, 0, cost,
        abandoned_tokens=tokens_of(abandoned), abandoned_usd_micros=known_usd_of(abandoned),
    )  # fmt: skip


limits = st.builds(Limits, st.sampled_from([0, 60, 200]), st.sampled_from([0, 4, 15]), st.sampled_from([0, 1, 3]))


@given(
    seed=st.integers(0, 2**32),
    limits=limits,
    model_limits=limits,
    usd=st.sampled_from([None, 0, 100]),
    tokens=st.sampled_from([None, 120]),
    workers=st.integers(1, 4),
    calls=st.integers(1, 25),
)
@settings(max_examples=40)
def test_no_limit_is_exceeded_at_any_sequence_and_each_call_is_paid_once(
    seed, limits, model_limits, usd, tokens, workers, calls
):
    budget = Budget("epic", "e", usd, tokens)
    story = Story(seed, limits, model_limits, budget, workers)
    asyncio.run(story.tell(calls))
    naive = Naive(limits, model_limits, {budget.key: budget})
    for record in story.log.records:
        for event in CODEC.decode(record.data).events:
            naive.take(event)
    assert set(naive.open) <= story.orphans, "a reservation was lost"
    assert {request: event.cost_usd_micros for request, event in naive.paid.items()} == story.answered
    paid = {corr_id for corr_id, _ in naive.paid}
    assert paid | set(story.refused) == {f"c{number}" for number in range(calls)}
    assert not paid & set(story.refused)
