"""Brings the planner's projections up to now, keeps them there, and measures how far behind they are."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from contracts.errors import Rejected
from contracts.ledger import LEDGER_ID
from contracts.streams import EVENTS_EXECUTOR, EVENTS_LLM_WORKER, EVENTS_PLANNER
from contracts.subjects import events as event_subject
from services.planner.epic_list import EpicList
from services.planner.epic_spending import EpicSpending
from services.planner.strategy_book import StrategyBook
from services.planner.unreadable import Unreadable
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from services.runtime.follow import Follower
from services.runtime.metrics import Metrics

CATCH_UP_S: Final = 60.0


class Projection(NamedTuple):
    """One projection: what it follows, and how far it has come."""

    name: str
    stream: str
    pattern: str
    follower: Follower


class Projections:
    """All projections of one planner."""

    def __init__(self, bus: Bus, metrics: Metrics, unreadable: Unreadable) -> None:
        self._bus, self._metrics, self._unreadable = bus, metrics, unreadable
        self._all: list[Projection] = []

    async def start(self, book: StrategyBook, epic_list: EpicList, spending: EpicSpending) -> None:
        """Follow, and wait until strategies and epics are known. Progress of runs, and what they cost, may come later.

        Raises Rejected("nats_unavailable") when the log cannot be read within CATCH_UP_S.
        """
        strategies, epics, runs, ledger = (
            (EVENTS_PLANNER, event_subject("planner", "strategy", "*")),
            (EVENTS_PLANNER, event_subject("planner", "epic", "*")),
            (EVENTS_EXECUTOR, event_subject("executor", "run", "*")),
            (EVENTS_LLM_WORKER, event_subject("llm-worker", "ledger", LEDGER_ID)),
        )
        self._all = [
            await self._follow("strategies", *strategies, book.take),
            await self._follow("epics", *epics, epic_list.take_epic, headers_only=True),
            await self._follow("progress", *runs, epic_list.take_run, headers_only=True),
            await self._follow("spending", *ledger, spending.take),
        ]
        try:
            async with asyncio.timeout(CATCH_UP_S):
                for projection in self._all[:2]:
                    await projection.follower.caught_up.wait()
        except TimeoutError as error:
            raise Rejected("nats_unavailable", "the planner's events cannot be read in time") from error

    def not_ready(self) -> str | None:
        """Why queries would answer with old news; None when they would not."""
        late = [projection.name for projection in self._all if not projection.follower.caught_up.is_set()]
        return f"being read: {', '.join(late)}" if late else None

    async def measure(self) -> None:
        """Set the lag of each projection, in stream sequences. Raises Rejected when the broker does not answer."""
        for projection in self._all:
            newest = await self._bus.newest(projection.stream, projection.pattern)
            lag = max(0, newest - projection.follower.last_seq)
            self._metrics.set("htdag_projection_lag_messages", lag, projection=f"planner-{projection.name}")

    async def _follow(
        self, name: str, stream: str, pattern: str, take: Callable[[Recorded], None], *, headers_only: bool = False
    ) -> Projection:
        careful = partial(self._unreadable.take, name, take)
        return Projection(
            name, stream, pattern, await self._bus.follow(stream, pattern, careful, headers_only=headers_only)
        )
