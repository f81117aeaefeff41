"""Heartbeats on `llm.health`, and who is alive as the beats of all workers show it.

The newest beat of each worker is kept in a stream too: one that died is known to those that came after it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from contracts.errors import Rejected
from contracts.limits import GONE_REMEMBERED_S, HEARTBEATS_MISSED_MAX
from contracts.llm import LlmHealth, WorkerView
from contracts.streams import LLM_WORKERS
from contracts.subjects import LLM_HEALTH, LLM_ROLL, llm_worker
from services.llm_worker.load import Load
from services.llm_worker.replies import reply
from services.runtime.bus import Bus, Message
from services.runtime.clock import Clock, rfc3339

WORKERS_REMEMBERED_MAX: Final = 1_000
ROLL_S: Final = 0.15
"""So long everybody who lives, and whom nobody knows yet, has time to answer the roll."""
SILENT_S: Final = 1.0
"""So long a worker that should be there is waited for."""
Status = Literal["up", "draining", "down"]

_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(LlmHealth).decode


class Heart:
    """This worker's beat."""

    def __init__(
        self,
        *,
        bus: Bus,
        clock: Clock,
        worker_id: str,
        models: list[str],
        in_flight: Callable[[], int],
        load: Load,
        limited: Callable[[], int],
        every_s: float,
        log: Any,
    ) -> None:
        self._bus, self._clock, self._worker_id, self._models = bus, clock, worker_id, models
        self._in_flight, self._load, self._limited = in_flight, load, limited
        self._every_s, self._log = every_s, log
        self._status: Status = "up"
        self._beats = 0
        self._kept: asyncio.Future[Any] | None = None

    def beat(self, status: Status) -> None:
        """Say how it is, now; it stays so until something else is said."""
        self._status = status
        said = self._said()
        self._bus.publish(LLM_HEALTH, said)
        self._beats += 1
        subject, msg_id = llm_worker(self._worker_id), f"{self._worker_id}:{self._beats}"
        self._kept = self._bus.store(subject, said, stream=LLM_WORKERS, msg_id=msg_id)
        self._kept.add_done_callback(self._not_kept)

    async def last_kept(self, within_s: float) -> None:
        """Wait until the last beat is kept for those who come later, or that long."""
        if self._kept is not None:
            await asyncio.wait((self._kept,), timeout=within_s)

    def _not_kept(self, stored: "asyncio.Future[Any]") -> None:
        error = None if stored.cancelled() else stored.exception()
        if error is not None:
            self._log.warning(
                "beat_not_kept", reason=str(error), hint="workers that come later may not know of this one"
            )

    def called(self, message: Message) -> None:
        """The roll is called: whoever asks hears how this worker is, and nobody else."""
        reply(self._bus, self._log, message.reply, self._said())

    async def run(self) -> None:
        """Beat for ever, the first time at once."""
        while True:
            self.beat(self._status)
            await asyncio.sleep(self._every_s)

    def _said(self) -> bytes:
        at, load = rfc3339(self._clock.now_ms()), self._load
        return _ENCODE(
            LlmHealth(
                self._worker_id,
                at,
                self._status,
                self._models,
                self._in_flight(),
                load.waiting,
                load.wait_ms,
                self._limited(),
            )
        )


class Registry:
    """Every worker that was heard of lately. Time is of this process: clocks elsewhere may differ.

    Only how long ago somebody spoke whom this process has never heard is reckoned by the clock of whoever it was.
    """

    def __init__(self, *, clock: Clock, every_s: float) -> None:
        self._clock, self._every_s = clock, every_s
        self._heard: OrderedDict[str, tuple[LlmHealth, float]] = OrderedDict()

    def take(self, message: Message) -> None:
        """One beat; what is no beat of ours is not counted."""
        try:
            health = _DECODE(message.data)
        except msgspec.MsgspecError:
            return
        self._heard.pop(health.worker_id, None)
        self._heard[health.worker_id] = (health, self._clock.monotonic_s())
        if len(self._heard) > WORKERS_REMEMBERED_MAX:
            self._heard.popitem(last=False)

    def recall(self, data: bytes) -> None:
        """One beat from before this process began; what it has heard itself counts more."""
        try:
            health = _DECODE(data)
            ago_s = max(0.0, self._clock.now_ms() / 1000 - datetime.fromisoformat(health.at).timestamp())
        except (msgspec.MsgspecError, ValueError):
            return
        if len(self._heard) < WORKERS_REMEMBERED_MAX:
            self._heard.setdefault(health.worker_id, (health, self._clock.monotonic_s() - ago_s))

    def silent_since(self, asked_s: float) -> set[str]:
        """Who should be there and was not heard since then."""
        limit_s = self._every_s * HEARTBEATS_MISSED_MAX
        return {
            health.worker_id
            for health, heard_s in self._heard.values()
            if health.status != "down" and heard_s < asked_s and self._clock.monotonic_s() - heard_s < limit_s
        }

    @property
    def now_s(self) -> float:
        """The clock by which it is noted when somebody was heard."""
        return self._clock.monotonic_s()

    def views(self, quiet: Collection[str] = ()) -> list[WorkerView]:
        """All workers, those that were heard last first; `dead` after three missed beats without a goodbye."""
        now_s, limit_s = self._clock.monotonic_s(), self._every_s * HEARTBEATS_MISSED_MAX
        views = []
        for health, heard_s in sorted(reversed(self._heard.values()), key=lambda heard: -heard[1]):
            silent = health.status != "down" and now_s - heard_s >= limit_s
            if (silent or health.status == "down") and now_s - heard_s >= GONE_REMEMBERED_S:
                continue
            views.append(
                WorkerView(
                    worker_id=health.worker_id,
                    status="dead" if silent else health.status,
                    last_beat_at=health.at,
                    models=health.models,
                    in_flight=0 if silent else health.in_flight,
                    waiting=0 if silent else health.waiting,
                    wait_ms=0 if silent else health.wait_ms,
                    limited=0 if silent else health.limited,
                    silent=health.worker_id in quiet,
                )
            )
        return views


async def recall_the_gone(bus: Bus, registry: Registry, log: Any) -> None:
    """Learn at the start of whom nobody will hear again: what cannot be read now is not known, and no more."""
    try:
        async for kept in bus.history(LLM_WORKERS, llm_worker("*")):
            if not kept.forged:
                registry.recall(kept.data)
    except Rejected as error:
        log.warning("workers_not_recalled", code=error.code)


async def call_the_roll(bus: Bus, registry: Registry) -> set[str]:
    """Learn at once who is there, and how busy: every worker answers to an inbox of ours. Returns who did not."""
    inbox = bus.inbox()
    asked_s, all_there = registry.now_s, asyncio.Event()

    def take(message: Message) -> None:
        registry.take(message)
        if not registry.silent_since(asked_s):
            all_there.set()

    subscription = await bus.subscribe(inbox, take)
    try:
        await bus.flush()
        bus.publish(LLM_ROLL, b"", reply=inbox)
        await asyncio.sleep(ROLL_S)
        if not registry.silent_since(asked_s):
            return set()
        try:
            async with asyncio.timeout(SILENT_S):
                await all_there.wait()
        except TimeoutError:
            return registry.silent_since(asked_s)
        return set()
    finally:
        await subscription.unsubscribe()
