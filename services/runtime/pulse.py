"""Whether a stream has stopped storing: it answers questions, but nothing that is sent to it arrives.

A nats-server whose disk was full once freezes each stream that it could not write: no acknowledgement, no error, not
even after the disk has room again, until the server is started anew. A stream that is only slow goes on counting, or
is too busy to answer; one that elects a leader does not answer either. That is how they are told apart.
"""

import asyncio
from typing import Final

from services.runtime.link import Link
from services.runtime.stream_info import stream_info

STILL_S: Final = 1.0
"""So long between two looks at the same last sequence."""
FRESH_S: Final = 5.0
ABSENT: Final = -1
"""What counts as the last sequence of a stream that the broker does not know."""


class Pulse:
    """The pulse of one stream, looked at only while an acknowledgement is overdue."""

    def __init__(self, link: Link, stream: str) -> None:
        self._link, self._stream = link, stream
        self._loop = asyncio.get_running_loop()
        self._seen: tuple[int, float] | None = None
        self._looking: asyncio.Task[int | None] | None = None
        self._stopped_s = float("-inf")
        self.stopped = self.absent = False

    @property
    def stopped_now(self) -> bool:
        """Whether it was found stopped within the last seconds; after that only another try can tell."""
        return self.stopped and self._loop.time() - self._stopped_s < FRESH_S

    def beat(self) -> None:
        """It stored something, or the broker is another one."""
        self._seen, self.stopped, self.absent = None, False, False

    async def look(self) -> bool:
        """Whether nothing has arrived in it for a while, although the broker is well: it is stopped, or absent."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._last_seq(), name=f"look at {self._stream}")
        seq = await asyncio.shield(self._looking)
        now_s = self._loop.time()
        if seq is None:
            self.beat()
        elif self._seen is None or self._seen[0] != seq:
            self.beat()
            self._seen = (seq, now_s)
        elif now_s - self._seen[1] >= STILL_S:
            self.absent = seq == ABSENT
            self.stopped, self._stopped_s = not self.absent, now_s
        return self.stopped or self.absent

    async def _last_seq(self) -> int | None:
        """The last sequence of a stream without replicas; None when nobody says it in time."""
        try:
            info = await stream_info(self._link, self._stream)
        finally:
            self._looking = None
        if info is not None and info.absent:
            return ABSENT
        # Of several replicas a majority may be missing for a while: that is no full disk.
        alone = info is not None and (info.cluster is None or not info.cluster.replicas)
        return info.state.last_seq if info is not None and info.state is not None and alone else None
