"""Heartbeats on `llm.health`, and who is alive as the beats of all workers show it."""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from contracts.limits import HEARTBEATS_MISSED_MAX
from contracts.llm import LlmHealth, WorkerView
from contracts.subjects import LLM_HEALTH
from services.runtime.bus import Bus, Message
from services.runtime.clock import Clock, rfc3339

ANSWER_WITHIN_S: Final = 0.5
WORKERS_REMEMBERED_MAX: Final = 1_000
Status = Literal["up", "draining", "down"]

_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(LlmHealth).decode


class Heart:
    """This worker's beat."""

    def __init__(
        self, *, bus: Bus, clock: Clock, worker_id: str, models: list[str], in_flight: Callable[[], int], every_s: float
    ) -> None:
        self._bus, self._clock, self._worker_id, self._models = bus, clock, worker_id, models
        self._in_flight, self._every_s = in_flight, every_s
        self._answering: asyncio.TimerHandle | None = None
        self._gone = False

    def beat(self, status: Status) -> None:
        """Say how it is, now."""
        self._gone = status != "up"
        at = rfc3339(self._clock.now_ms())
        health = LlmHealth(self._worker_id, at, status, self._models, self._in_flight())
        self._bus.publish(LLM_HEALTH, _ENCODE(health))

    def answer(self) -> None:
        """Somebody new has said hello: let it know of this worker soon, once for all that came together."""
        if self._answering is None:
            self._answering = asyncio.get_running_loop().call_later(random.uniform(0, ANSWER_WITHIN_S), self._answer)

    def _answer(self) -> None:
        self._answering = None
        if not self._gone:
            self.beat("up")

    async def run(self) -> None:
        """Beat for ever, the first time at once."""
        while True:
            self.beat("up")
            await asyncio.sleep(self._every_s)


class Registry:
    """Every worker that was heard of since this process began. Time is of this process: clocks elsewhere may differ."""

    def __init__(self, *, clock: Clock, every_s: float) -> None:
        self._clock, self._every_s = clock, every_s
        self._heard: OrderedDict[str, tuple[LlmHealth, float]] = OrderedDict()

    def take(self, message: Message) -> bool:
        """One beat; what is no beat of ours is not counted. Whether it is the first of a worker that is up."""
        try:
            health = _DECODE(message.data)
        except msgspec.MsgspecError:
            return False
        known = self._heard.pop(health.worker_id, None)
        self._heard[health.worker_id] = (health, self._clock.monotonic_s())
        if len(self._heard) > WORKERS_REMEMBERED_MAX:
            self._heard.popitem(last=False)
        return known is None and health.status == "up"

    def views(self) -> list[WorkerView]:
        """All workers, those that were heard last first; `dead` after three missed beats without a goodbye."""
        now_s, limit_s = self._clock.monotonic_s(), self._every_s * HEARTBEATS_MISSED_MAX
        views = []
        for health, heard_s in reversed(self._heard.values()):
            silent = health.status != "down" and now_s - heard_s >= limit_s
            views.append(
                WorkerView(
                    worker_id=health.worker_id,
                    status="dead" if silent else health.status,
                    last_beat_at=health.at,
                    models=health.models,
                    in_flight=0 if silent else health.in_flight,
                )
            )
        return views
