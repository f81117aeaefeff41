"""A broker that restarts is back in seconds; one that was stopped is not waited for without end."""

import asyncio
from typing import TYPE_CHECKING, Final

from contracts.errors import Rejected

if TYPE_CHECKING:
    from services.runtime.bus import Bus

AWAY_S: Final = 30.0
_LOOK_S: Final = 0.5


class Absence:
    """How long the connection has been gone."""

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._since_s: float | None = None

    def check(self, connected: bool, now_s: float) -> None:
        """Raise nats_unavailable once the broker has been away for AWAY_S."""
        if connected:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s > AWAY_S:
            raise Rejected("nats_unavailable", f"the broker has been away for {AWAY_S:g} s", hint=self._hint)


async def while_there(bus: "Bus", done: asyncio.Event, hint: str) -> None:
    """Wait for `done`. Raises nats_unavailable when the broker stays away."""
    absence, loop = Absence(hint), asyncio.get_running_loop()
    while not done.is_set():
        absence.check(bus.connected, loop.time())
        try:
            async with asyncio.timeout(_LOOK_S):
                await done.wait()
        except TimeoutError:
            continue  # nothing came: is the broker still there?
