"""Connections of the local listener: who says nothing keeps nobody else waiting.

Any user of this host may open connections here. Without bounds some dozens that never ask for anything would take all
places, and with them the owner's way back.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S: Final = 3.0
"""In this time a request must be there whole."""
QUIET_MAX: Final = 32
"""So many may be on their way to a request; of more, the oldest gives way."""


class BoundedConnection(H11Protocol):
    """A connection that is closed when it has not said a whole request in time, or the oldest of too many such."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._deadline = self.loop.call_later(REQUEST_S, self._late)
        quiet = [one for one in self.connections if isinstance(one, BoundedConnection) and one.is_quiet]
        if len(quiet) > QUIET_MAX:
            # Not logged: whoever opens them as fast as they can would fill the disk, too.
            min(quiet, key=lambda one: one._since_s).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._deadline.cancel()
        super().connection_lost(exc)

    @property
    def is_quiet(self) -> bool:
        """Whether the end of its first request is still missing."""
        return self.cycle is None or self.cycle.more_body

    def _late(self) -> None:
        if self.is_quiet:
            self.logger.warning("connection closed: no whole request within %g s", REQUEST_S)
            self.transport.abort()
