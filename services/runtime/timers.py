"""Durable timers by JetStream message schedules: one per actor, moved by arming again, gone when purged."""

import asyncio
from collections.abc import Callable
from typing import Final

from contracts import subjects
from contracts.streams import TIMERS
from services.runtime.bus import Bus
from services.runtime.clock import rfc3339

FIRED_KEPT: Final = "168h"
"""As long as a run may last: executors that were all away find it when they are back."""


class JetStreamTimers:
    """Timers of one aggregate. One that fell due while the broker was down fires when it is back."""

    def __init__(self, bus: Bus, service: str, aggregate: str, log: Callable[[str], None] = lambda _: None) -> None:
        self._bus, self._service, self._aggregate, self._log = bus, service, aggregate, log
        self._count = 0
        self._armed: dict[str, int] = {}
        self._nonce = bus.inbox().rsplit(".", 1)[-1]

    async def arm(self, actor_id: str, at_ms: int) -> None:
        """See actor.Timers.arm."""
        self._count += 1
        stored = await self._bus.store(
            subjects.timer_armed(self._service, self._aggregate, actor_id),
            b"",
            stream=TIMERS,
            # Arming again for the same moment must count, so the id is never the same twice.
            msg_id=f"{self._nonce}-{self._count}",
            headers={
                "Nats-Schedule": f"@at {rfc3339(at_ms)}",
                "Nats-Schedule-Target": subjects.timer_fired(self._service, self._aggregate, actor_id),
                "Nats-Schedule-TTL": FIRED_KEPT,
            },
        )
        self._armed[actor_id] = stored.seq

    async def disarm(self, actor_id: str) -> None:
        """See actor.Timers.disarm. Only what was armed here goes: another process may have armed a newer one since.

        A timer that is left over fires into an actor that has nothing due: harmless.
        """
        seq = self._armed.pop(actor_id, None)
        if seq is None:
            return
        subject = subjects.timer_armed(self._service, self._aggregate, actor_id)
        async with asyncio.timeout(10):
            await self._bus.api(f"STREAM.PURGE.{TIMERS}", {"filter": subject, "seq": seq + 1})
