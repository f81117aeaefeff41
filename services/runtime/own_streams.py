"""A service's own streams: made or waited for at its start, and looked at again whenever the broker comes back
or one turns out to be missing.

A broker that was started anew may have lost streams (all of them, when its store is gone); the connection alone does
not tell. Who may make streams makes them again; who may not says which are missing, on `/readyz` and in the log, until
somebody did: `htdag bus apply`.
"""

import asyncio
import random
from typing import Final

from contracts.errors import Rejected
from services.runtime import provision
from services.runtime.bus import Bus
from services.runtime.lifecycle import Log

LOOK_EVERY_S: Final = 1.0
"""At the start, where everything waits for the streams."""
JETSTREAM_WAIT_S: Final = 15.0
AGAIN_MIN_S: Final = 0.5
AGAIN_MAX_S: Final = 10.0
BEFORE_ELECTION: Final = frozenset({"jetstream_unavailable", "nats_unavailable", "timeout"})
"""What a broker says, or does not say, while it is coming up."""


class OwnStreams:
    """The streams and consumers of one service. `reason` says what is wrong with them by the last look, else None."""

    def __init__(self, service: str, *, makes: bool, log: Log) -> None:
        self._service, self._makes, self._log = service, makes, log
        self._due = False
        self._looking = False
        self.reason: str | None = None

    async def at_start(self, bus: Bus) -> None:
        """Return when they are there.

        Whoever makes them gives an electing cluster some time and raises Rejected jetstream_unavailable after it.
        """
        loop = asyncio.get_running_loop()
        last_s = loop.time() + JETSTREAM_WAIT_S
        while True:
            try:
                await self._look(bus)
            except Rejected as error:
                if error.code not in BEFORE_ELECTION:
                    raise
                if self._makes and error.code == "jetstream_unavailable" and loop.time() > last_s:
                    raise
                self.reason = error.message
                self._log.warning(error.code, reason=error.message, hint=error.kind.hint)
            if self.reason is None:
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def look_again(self, bus: Bus) -> None:
        """Look until they are there, at a pace that slows down. A call while one is under way is one more look."""
        self._due = True
        if self._looking:
            return
        self._looking = True
        pause_s = AGAIN_MIN_S
        try:
            # Not all services at once: the broker has just come up.
            await asyncio.sleep(random.uniform(0, AGAIN_MIN_S))
            while self._due or self.reason is not None:
                self._due = False
                try:
                    await self._look(bus)
                except Rejected as error:
                    self.reason = f"{error.code}: {error.message}"
                    self._log.warning("streams_not_applied", code=error.code, reason=error.message, again_s=pause_s)
                if self.reason is not None:
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                    pause_s = min(pause_s * 2, AGAIN_MAX_S)
        finally:
            self._looking = False

    async def _look(self, bus: Bus) -> None:
        """Make what is missing, or say what is; raises Rejected when the broker does not let us."""
        if self._makes:
            changes = await provision.apply(bus)
            if made := [change.name for change in changes if change.action != "same"]:
                self._log.info("streams_applied", changed=made)
            self.reason = None
        elif missing := await provision.missing(bus, self._service):
            self.reason = f"there is no {', '.join(missing)}: `htdag bus apply` makes it"
            self._log.warning("stream_missing", reason=self.reason)
        else:
            self.reason = None
