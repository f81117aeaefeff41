"""Heartbeats on `llm.health`, and who is alive as the beats of all workers show it.

The newest beat of each worker is kept in a stream too: one that died is known to those that came after it. Who is dead
is counted from its last beat, which all have heard; what it answers to the roll is heard only by who called it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

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


class Roll(NamedTuple):
    """Who answered one call of the roll, and with what; and who should have, and was silent."""

    answers: Mapping[str, LlmHealth]
    silent: Collection[str]


NOT_CALLED: Final = Roll({}, ())


class Registry:
    """The last beat of every worker that was heard of lately. Time is of this process: clocks elsewhere may differ.

    Only how long ago somebody beat whom this process has never heard is reckoned by the clock of whoever it was.
    """

    def __init__(self, *, clock: Clock, every_s: float) -> None:
        self._clock, self._dead_after_s = clock, every_s * HEARTBEATS_MISSED_MAX
        self._beats: OrderedDict[str, tuple[LlmHealth, float]] = OrderedDict()

    def take(self, message: Message) -> None:
        """One beat; what is no beat of ours is not counted."""
        health = health_of(message.data)
        if health is None:
            return
        self._beats.pop(health.worker_id, None)
        self._beats[health.worker_id] = (health, self._clock.monotonic_s())
        if len(self._beats) > WORKERS_REMEMBERED_MAX:
            self._beats.popitem(last=False)

    def recall(self, data: bytes) -> None:
        """One beat from before this process began; what it has heard itself counts more."""
        try:
            health = _DECODE(data)
            ago_s = max(0.0, self._clock.now_ms() / 1000 - datetime.fromisoformat(health.at).timestamp())
        except (msgspec.MsgspecError, ValueError):
            return
        self._know(health, self._clock.monotonic_s() - ago_s)

    def meet(self, health: LlmHealth) -> None:
        """Somebody answers the roll: who was not known by a beat is known from now on, for others nothing changes."""
        self._know(health, self._clock.monotonic_s())

    def expected(self) -> set[str]:
        """Who should answer the roll: by their beats they live."""
        now_s = self._clock.monotonic_s()
        return {
            health.worker_id
            for health, heard_s in self._beats.values()
            if health.status != "down" and not self._is_overdue(heard_s, now_s)
        }

    def views(self, roll: Roll = NOT_CALLED) -> list[WorkerView]:
        """All workers, those that beat last first; `dead` after three missed beats without a goodbye.

        Whoever answered the roll is as it said just now, and not dead; of others all workers know the same: their beat.
        """
        now_s = self._clock.monotonic_s()
        views = []
        for beat, heard_s in sorted(reversed(self._beats.values()), key=lambda heard: -heard[1]):
            health = roll.answers.get(beat.worker_id, beat)
            overdue = beat.worker_id not in roll.answers and self._is_overdue(heard_s, now_s)
            dead = overdue and health.status != "down"
            if (dead or health.status == "down") and now_s - heard_s >= GONE_REMEMBERED_S:
                continue
            views.append(
                WorkerView(
                    worker_id=health.worker_id,
                    status="dead" if dead else health.status,
                    last_beat_at=beat.at,
                    models=health.models,
                    in_flight=0 if dead else health.in_flight,
                    waiting=0 if dead else health.waiting,
                    wait_ms=0 if dead else health.wait_ms,
                    limited=0 if dead else health.limited,
                    silent=health.worker_id in roll.silent,
                )
            )
        return views

    def _know(self, health: LlmHealth, heard_s: float) -> None:
        if len(self._beats) < WORKERS_REMEMBERED_MAX:
            self._beats.setdefault(health.worker_id, (health, heard_s))

    def _is_overdue(self, heard_s: float, now_s: float) -> bool:
        return now_s - heard_s >= self._dead_after_s


def health_of(data: bytes) -> LlmHealth | None:
    """What a worker says of itself, or None when `data` is nothing of that kind."""
    try:
        return _DECODE(data)
    except msgspec.MsgspecError:
        return None


async def recall_the_gone(bus: Bus, registry: Registry, log: Any) -> None:
    """Learn at the start of whom nobody will hear again: what cannot be read now is not known, and no more."""
    try:
        async for kept in bus.history(LLM_WORKERS, llm_worker("*")):
            if not kept.forged:
                registry.recall(kept.data)
    except Rejected as error:
        log.warning("workers_not_recalled", code=error.code)


async def call_the_roll(bus: Bus, registry: Registry) -> Roll:
    """Learn at once who is there, and how busy: every worker answers to an inbox of ours."""
    inbox, answers, all_there = bus.inbox(), dict[str, LlmHealth](), asyncio.Event()

    def take(message: Message) -> None:
        health = health_of(message.data)
        if health is None or len(answers) >= WORKERS_REMEMBERED_MAX:
            return
        answers[health.worker_id] = health
        registry.meet(health)
        if not registry.expected() - answers.keys():
            all_there.set()

    subscription = await bus.subscribe(inbox, take)
    try:
        await bus.flush()
        bus.publish(LLM_ROLL, b"", reply=inbox)
        await asyncio.sleep(ROLL_S)
        if registry.expected() - answers.keys():
            try:
                async with asyncio.timeout(SILENT_S):
                    await all_there.wait()
            except TimeoutError:
                return Roll(answers, registry.expected() - answers.keys())
        return Roll(answers, ())
    finally:
        await subscription.unsubscribe()
