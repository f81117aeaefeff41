"""Runs that go on, but that nobody holds and no timer will wake: a lost timer or an expired input must not end them.

A run at rest has a durable timer, a run at work has an input that is not settled. What has neither (the broker lost
one, or nobody lived while it expired) would sleep for ever, so each executor looks at its start and now and then.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

import msgspec

from contracts.commit import HEADER_SUMMARY
from contracts.errors import Rejected
from contracts.streams import COMMANDS, TIMERS
from contracts.subjects import command, events, timer_armed
from services.executor.mailboxes import TIME
from services.runtime.clock import Clock
from services.runtime.event_store import EventStore, Recorded
from services.runtime.lifecycle import Log
from services.runtime.publisher import Stored

SETTLING_S: Final = 5.0
"""After a start the other executors are heard, and what waits in the mailboxes comes, within this time."""
SCAN_EVERY_S: Final = 600.0
PAGE: Final = 500
QUIET_MS: Final = 60_000
"""Another executor may hold a run and work on it for as long as this without a commit."""


class _Newest(msgspec.Struct):
    at: str = ""


class _Shown(msgspec.Struct):
    status: str = "running"


class Post(Protocol):
    """The part of the bus that waking needs."""

    def store(self, subject: str, data: bytes, *, stream: str, msg_id: str) -> "asyncio.Future[Stored]":
        """Store one message durably."""
        ...

    async def subjects(self, stream: str, pattern: str) -> dict[str, int]:
        """Subjects of a stream that match, with their numbers of messages."""
        ...


class Sleepers:
    """Finds them and puts a message that says the time into their mailboxes.

    `held` says whether a run is in this process's memory, `alone` says whether no other executor lives.
    """

    def __init__(
        self,
        store: EventStore,
        post: Post,
        clock: Clock,
        log: Log,
        held: Callable[[str], bool],
        alone: Callable[[], bool],
    ) -> None:
        self._store, self._post, self._clock, self._log = store, post, clock, log
        self._held, self._alone = held, alone

    async def watch(self) -> None:
        """Wake sleepers at the start and every ten minutes, until cancelled."""
        await asyncio.sleep(SETTLING_S)
        while True:
            try:
                woken = await self.wake()
            except Rejected as error:  # the broker is away or full: the next look finds them too
                self._log.warning("sleepers_not_woken", code=error.code)
            else:
                if woken:
                    self._log.info("sleepers_woken", runs=woken)
            await asyncio.sleep(SCAN_EVERY_S)

    async def wake(self) -> int:
        """Look at every run once; returns how many were told the time. Raises Rejected when the broker is away."""
        armed = await self._post.subjects(TIMERS, timer_armed("executor", "run", "*"))
        subjects = [*await self._store.subjects(events("executor", "run", "*"))]
        woken = 0
        for at in range(0, len(subjects), PAGE):
            last = await self._store.last_of_many(subjects[at : at + PAGE])
            asleep = [
                (run_id, record.seq)
                for run_id, record in ((subject.rpartition(".")[2], record) for subject, record in last.items())
                if timer_armed("executor", "run", run_id) not in armed and self._sleeps(run_id, record)
            ]
            # The id makes one message of what several executors find, and of what is found again after a restart.
            await asyncio.gather(
                *(
                    self._post.store(
                        command("executor", "run", run_id, TIME), b"", stream=COMMANDS, msg_id=f"wake:{run_id}:{seq}"
                    )
                    for run_id, seq in asleep
                )
            )
            woken += len(asleep)
        return woken

    def _sleeps(self, run_id: str, record: Recorded) -> bool:
        try:
            return self._goes_on_unheld(run_id, record)
        except (msgspec.MsgspecError, ValueError):  # no commit of ours: nothing here could carry it on
            self._log.warning("commit_not_read", run_id=run_id, seq=record.seq)
            return False

    def _goes_on_unheld(self, run_id: str, record: Recorded) -> bool:
        summary = record.headers.get(HEADER_SUMMARY)
        if self._held(run_id) or (summary and msgspec.json.decode(summary, type=_Shown).status != "running"):
            return False
        if self._alone():
            return True
        at = datetime.fromisoformat(msgspec.json.decode(record.data, type=_Newest).at)
        return self._clock.now_ms() - at.timestamp() * 1000 >= QUIET_MS
