"""Carries hand-overs to the executor's mailbox: durably, in order within a run, and again until the broker has them.

A hand-over that a crash cut off stands in the epic's log; `sweep` finds it at the next start of any planner.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.streams import COMMANDS
from services.planner.epic.hand_over import HandOver
from services.runtime.bus import Bus
from services.runtime.lifecycle import Log
from services.runtime.surroundings import WAITED_OUT

RETRY_FIRST_S: Final = 0.2
RETRY_MAX_S: Final = 5.0
WAIT_S: Final = 10.0
_STANDING: Final = frozenset({"storage_full", "stream_missing"})
"""What does not pass by itself soon: somebody has to mend it."""
_ENCODE: Final = msgspec.json.Encoder().encode


class HandOvers:
    """The effects of epics. See services.runtime.effects.EffectRunner."""

    def __init__(self, bus: Bus, log: Log) -> None:
        self._bus = bus
        self._log = log
        self._open: dict[str, asyncio.Task[bool]] = {}
        self._waiting: dict[str, set[asyncio.Future[str]]] = {}
        self._last_of_run: dict[str, asyncio.Task[bool]] = {}

    def start(self, actor_id: str, effect: HandOver, done: Callable[[Any], None]) -> None:
        """Begin to hand over; `done(None)` follows when the broker has it, or when it is left to the sweep."""
        before = self._last_of_run.get(effect.run_id)
        task = asyncio.get_running_loop().create_task(self._deliver(effect, before), name=effect.msg_id)
        self._open[effect.msg_id] = task
        self._last_of_run[effect.run_id] = task

        def forget(ended: "asyncio.Task[bool]") -> None:
            if self._open.get(effect.msg_id) is ended:
                del self._open[effect.msg_id]
            if self._last_of_run.get(effect.run_id) is ended:
                del self._last_of_run[effect.run_id]
            done(None)

        task.add_done_callback(forget)

    def is_open(self, hand_over: HandOver) -> bool:
        """Whether this one is under way here."""
        return hand_over.msg_id in self._open

    async def wait(self, run_id: str) -> None:
        """Wait until what is under way for a run is handed over.

        Raises Rejected("nats_unavailable") when it is not in time, and storage_full as soon as that is known. What was
        accepted stays accepted: it is handed over later.
        """
        task = self._last_of_run.get(run_id)
        if task is None:
            return
        full: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(run_id, set())
        waiting.add(full)
        try:
            await asyncio.wait((task, full), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.discard(full)
            if not waiting:
                self._waiting.pop(run_id, None)
        if not task.done() or task.cancelled() or not task.result():
            raise Rejected(
                full.result() if full.done() else "nats_unavailable",
                "accepted and stored, but the executor's mailbox has it not yet; it is tried again by itself",
                run_id=run_id,
            )

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        while self._open:
            await asyncio.wait(self._open.values())

    async def stop(self) -> None:
        """Cut what is under way; the sweep of the next start finds it."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _deliver(self, hand_over: HandOver, before: "asyncio.Task[bool] | None") -> bool:
        if before is not None:
            await asyncio.wait((before,))
            if before.cancelled() or not before.result():
                return False  # what comes later may depend on it: the sweep repeats both, in order
        data = _ENCODE(hand_over.body)
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._bus.store(hand_over.subject, data, stream=COMMANDS, msg_id=hand_over.msg_id)
            except Rejected as error:
                report = self._log.warning if error.code in WAITED_OUT else self._log.error
                report("hand_over_failed", run_id=hand_over.run_id, code=error.code, reason=error.message)
                if error.code not in WAITED_OUT:
                    return False
                if error.code in _STANDING:
                    self._tell(hand_over.run_id, error.code)
            else:
                return True
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MAX_S)

    def _tell(self, run_id: str, code: str) -> None:
        """Whoever waits is told now what it waits for."""
        for waiting in self._waiting.get(run_id, ()):
            if not waiting.done():
                waiting.set_result(code)
