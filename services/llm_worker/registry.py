"""Who of the pool is alive, as the beats of all workers show it.

Who is dead is counted from its last beat, which all have heard; what it answers to the roll is heard only by who called
it.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from contracts.limits import GONE_REMEMBERED_S, HEARTBEATS_MISSED_MAX
from contracts.llm import LlmHealth, WorkerView
from services.runtime.bus import Message
from services.runtime.clock import Clock

WORKERS_REMEMBERED_MAX: Final = 1_000
_DECODE: Final = msgspec.json.Decoder(LlmHealth).decode


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
