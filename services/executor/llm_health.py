"""Whether any llm-worker lives, by its heartbeats."""

from typing import Final

import msgspec

from contracts.limits import HEARTBEAT_INTERVAL_S, HEARTBEATS_MISSED_MAX
from contracts.llm import LlmHealth

SILENCE_S: Final = HEARTBEAT_INTERVAL_S * HEARTBEATS_MISSED_MAX
WORKERS_REMEMBERED_MAX: Final = 1_000
"""Anybody may say on the public edge that he is a worker."""
_DECODE: Final = msgspec.json.Decoder(LlmHealth).decode


class LlmWatch:
    """Remembers when each worker was last heard. Times are monotonic seconds.

    Before `SILENCE_S` have passed since the watch began, silence proves nothing and workers count as alive.
    """

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._heard: dict[str, float] = {}

    def take(self, data: bytes, now_s: float) -> None:
        """Take in one heartbeat; what is none is no proof of life."""
        try:
            beat = _DECODE(data)
        except msgspec.MsgspecError:
            return
        if beat.status == "down":
            self._heard.pop(beat.worker_id, None)
        else:
            self._heard.pop(beat.worker_id, None)
            self._heard[beat.worker_id] = now_s
            if len(self._heard) > WORKERS_REMEMBERED_MAX:
                del self._heard[next(iter(self._heard))]

    def alive(self, now_s: float) -> bool:
        """Whether a worker beat lately."""
        limit = now_s - SILENCE_S
        self._heard = {worker: at for worker, at in self._heard.items() if at >= limit}
        return bool(self._heard) or now_s - self._began_s < SILENCE_S
