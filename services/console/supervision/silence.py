"""Which workers hang: their process is there, and three beats of theirs are missing. Pure: the clock comes in.

Silence counts only while we listened without a break. To whoever was frozen, or had lost the broker, everybody is
silent: then all are taken for heard at the first look after it, and the counting begins anew.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from contracts.limits import HEARTBEAT_INTERVAL_S, HEARTBEATS_MISSED_MAX

AWAY_S: Final = 10.0
"""Looks come every few seconds; after a longer gap between two nobody knows what was not heard in it."""
AGAIN_S: Final = 90.0
"""A program is ended this seldom: if the next process hangs as well, a quicker end would not help it."""
_EVERY_MIN_S: Final = 1.0


class _Heard(NamedTuple):
    at_s: float
    every_s: float = HEARTBEAT_INTERVAL_S


class Silence:
    """What was heard of the workers of some programs. Programs are given as name: worker."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._ended_s: dict[str, float] = {}
        self._looked_s = float("-inf")

    def forget(self) -> None:
        """Nothing could be heard: all begin anew."""
        self._heard.clear()

    def knows(self, worker_id: str) -> bool:
        """Whether the silence of this worker is counted already."""
        return worker_id in self._heard

    def heard(self, worker_id: str, now_s: float, every_s: float = HEARTBEAT_INTERVAL_S) -> None:
        """A sign of life, and when the next is due at the latest; workers that no program is are not counted."""
        if worker_id in self._heard:
            self._heard[worker_id] = _Heard(now_s, max(every_s, _EVERY_MIN_S))

    def dead(self, programs: Mapping[str, str], now_s: float) -> dict[str, float]:
        """The programs whose worker has missed its beats, and for how long it has been silent."""
        if now_s - self._looked_s > AWAY_S:
            self.forget()
        self._looked_s = now_s
        known = {worker: self._heard.get(worker, _Heard(now_s)) for worker in programs.values() if worker}
        self._heard = known
        silent_s = {name: now_s - known[worker].at_s for name, worker in programs.items() if worker}
        return {
            name: silent
            for name, silent in silent_s.items()
            if silent >= known[programs[name]].every_s * HEARTBEATS_MISSED_MAX
        }

    def to_end(self, dead: Mapping[str, float], now_s: float) -> str | None:
        """The program to end now: the one that is silent longest and was not ended lately."""
        ripe = [name for name in dead if now_s - self._ended_s.get(name, float("-inf")) >= AGAIN_S]
        return max(ripe, key=lambda name: (dead[name], name), default=None)

    def ended(self, name: str, now_s: float) -> None:
        """This program was ended."""
        self._ended_s[name] = now_s
