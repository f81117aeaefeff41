"""This worker's heartbeat on `llm.health`.

The newest beat of each worker is kept in a stream too: one that died is known to those that came after it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from contracts.llm import LlmHealth
from contracts.streams import LLM_WORKERS
from contracts.subjects import LLM_HEALTH, llm_worker
from services.llm_worker.load import Load
from services.llm_worker.replies import reply
from services.runtime.bus import Bus, Message
from services.runtime.clock import Clock, rfc3339

Status = Literal["up", "draining", "down"]

_ENCODE: Final = msgspec.json.Encoder().encode


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
                self._every_s,
            )
        )
