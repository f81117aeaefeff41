"""Sticky placement: which executor pulls which partition first.

Every replica pulls every partition, with a priority that is its rank by rendezvous hashing among the replicas that
beat. So a partition stays with one replica, moves at once when that one dies, and needs no election. A wrong view costs
locality only: the sequence check of the log makes overlap safe.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from typing import Final

from contracts import subjects
from contracts.errors import Rejected
from contracts.limits import PARTITIONS
from services.runtime.bus import Bus, Message
from services.runtime.clock import Clock

BEAT_S: Final = 2.0
DEAD_AFTER_S: Final = 3 * BEAT_S


def ranks(instance: str, replicas: frozenset[str], partitions: int = PARTITIONS) -> tuple[int, ...]:
    """The rank of `instance` for each partition, 0 = first, among `replicas` (itself included)."""
    everyone = replicas | {instance}

    def weight(replica: str, number: int) -> bytes:
        return hashlib.blake2b(f"{number}/{replica}".encode(), digest_size=8).digest()

    return tuple(
        sum(weight(other, number) > weight(instance, number) for other in everyone) for number in range(partitions)
    )


class Placement:
    """Beats for this replica, listens to the others, and calls `on_change` with the new ranks."""

    def __init__(
        self, bus: Bus, clock: Clock, service: str, instance: str, on_change: Callable[[tuple[int, ...]], None]
    ) -> None:
        self._bus, self._clock, self._instance, self._on_change = bus, clock, instance, on_change
        self._subject = subjects.beat(service)
        self._seen: dict[str, float] = {}
        self._ranks: tuple[int, ...] = ()

    async def run(self) -> None:
        """Beat until cancelled."""
        subscription = await self._bus.subscribe(self._subject, self._heard)
        try:
            while True:
                with contextlib.suppress(Rejected):
                    self._bus.publish(self._subject, self._instance.encode())
                self.refresh()
                await asyncio.sleep(BEAT_S)
        finally:
            # The others learn at once that this replica leaves; without a connection they find out by its silence.
            with contextlib.suppress(Rejected):
                self._bus.publish(self._subject, b"-" + self._instance.encode())
                await subscription.unsubscribe()

    def refresh(self) -> None:
        """Forget who is silent and tell the ranks if they changed."""
        limit = self._clock.monotonic_s() - DEAD_AFTER_S
        self._seen = {name: at for name, at in self._seen.items() if at >= limit}
        found = ranks(self._instance, frozenset(self._seen))
        if found != self._ranks:
            self._ranks = found
            self._on_change(found)

    def _heard(self, message: Message) -> None:
        name = message.data.decode()
        if name.startswith("-"):
            self._seen.pop(name[1:], None)
        else:
            self._seen[name] = self._clock.monotonic_s()
        self.refresh()
