"""Finds plans and tasks that were committed but, because a planner died, never handed to the executor.

At a start it looks at the newest commits of all epics, later only at what is new and old enough that its writer must
be done. What the executor already has is left alone; the rest is handed over under the same message id, so it does no
harm when two planners find it or its writer is only slow.
"""

from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from contracts.epic import GoalPlanned, TasksEnqueued
from contracts.run import AddTasks
from contracts.streams import EVENTS_EXECUTOR, EVENTS_PLANNER
from contracts.subjects import check_id, parse_events
from contracts.subjects import events as event_subject
from services.planner.epic.hand_over import HandOver, hand_over
from services.planner.epic_reading import EPIC_CODEC
from services.planner.hand_overs import HandOvers
from services.planner.reads import Reads
from services.planner.unreadable import Unreadable
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.event_store import Recorded

LOOK_BACK: Final = 2_000
"""Stream sequences before the end that a start looks at: a crash can only have cut off the newest."""
GRACE_MS: Final = 30_000
CHECKED_TOGETHER: Final = 100
EPICS: Final = event_subject("planner", "epic", "*")


class Sweep:
    """Walks the epics' log once, from near its end at the start."""

    def __init__(self, bus: Bus, reads: Reads, hand_overs: HandOvers, clock: Clock, unreadable: Unreadable) -> None:
        self._bus, self._reads, self._hand_overs, self._clock = bus, reads, hand_overs, clock
        self._unreadable = unreadable
        self._position = 0

    async def begin(self) -> int:
        """The sweep of a start, whose last writer may be dead. Returns how many hand-overs were repeated."""
        info = await self._bus.api(f"STREAM.INFO.{EVENTS_PLANNER}")
        self._position = max(0, int(info["state"]["last_seq"]) - LOOK_BACK)
        return await self.run(0)

    async def run(self, grace_ms: int = GRACE_MS) -> int:
        """Go on to the newest commit that is older than `grace_ms`. Returns how many hand-overs were repeated."""
        old_enough_ms = self._clock.now_ms() - grace_ms
        found: list[tuple[str, HandOver]] = []
        position, repeated = self._position, 0
        history = cast(Any, self._bus.history(EVENTS_PLANNER, EPICS, self._position))
        async with aclosing(history) as records:
            async for record in records:
                seen = self._unreadable.take("sweep", _seen_in, record)
                if seen is not None:
                    if grace_ms and seen.committed_ms > old_enough_ms:
                        break
                    found.extend(seen.hand_overs)
                position = record.seq
                if len(found) >= CHECKED_TOGETHER:
                    repeated += await self._repeat(found)
                    self._position, found = position, []
        repeated += await self._repeat(found)
        # Only now: what could not be repeated, because the broker went away, is looked at again.
        self._position = position
        return repeated

    async def _repeat(self, found: list[tuple[str, HandOver]]) -> int:
        subjects = {one.run_id: event_subject("executor", "run", one.run_id) for _, one in found}
        begun = await self._bus.last_of_many(EVENTS_EXECUTOR, list(subjects.values())) if subjects else {}
        repeated = 0
        for epic_id, one in found:
            if self._hand_overs.is_open(one):
                continue
            if subjects[one.run_id] in begun and await self._has_arrived(one):
                continue
            self._hand_overs.start(epic_id, one, lambda _: None)
            repeated += 1
        return repeated

    async def _has_arrived(self, one: HandOver) -> bool:
        if not isinstance(one.body, AddTasks):
            return True
        board = await self._reads.board(one.run_id)
        return one.first_task_id in board.tasks


class _Seen(NamedTuple):
    committed_ms: float
    hand_overs: list[tuple[str, HandOver]]


def _seen_in(record: Recorded) -> _Seen:
    epic_id = parse_events(record.subject).aggregate_id
    commit = EPIC_CODEC.decode(record.data, skip_unknown=True)
    hand_overs = [
        (epic_id, hand_over(epic_id, event))
        for event in commit.events
        if isinstance(event, GoalPlanned | TasksEnqueued)
    ]
    for _, one in hand_overs:
        check_id(one.run_id, "run_id")
    return _Seen(datetime.fromisoformat(commit.at).timestamp() * 1000, hand_overs)
