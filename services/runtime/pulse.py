"""Whether a stream has stopped storing: it answers questions, but nothing that is sent to it arrives.

A nats-server whose disk was full once freezes each stream that it could not write: no acknowledgement, no error, not
even after the disk has room again, until the server is started anew. A stream that is only slow goes on counting, or
is too busy to answer; one that elects a leader does not answer either. That is how they are told apart.
"""

import asyncio
from typing import Final

import msgspec
from nats.aio.msg import Msg

from services.runtime.link import Link, status_of

LOOK_S: Final = 1.0
STILL_S: Final = 1.0
"""So long between two looks at the same last sequence."""
FRESH_S: Final = 5.0


class _State(msgspec.Struct):
    last_seq: int = 0


class _Cluster(msgspec.Struct):
    replicas: list[msgspec.Raw] = []


class _Info(msgspec.Struct):
    state: _State | None = None
    cluster: _Cluster | None = None


_DECODE: Final = msgspec.json.Decoder(_Info).decode


class Pulse:
    """The pulse of one stream, looked at only while an acknowledgement is overdue."""

    def __init__(self, link: Link, stream: str) -> None:
        self._link, self._stream = link, stream
        self._loop = asyncio.get_running_loop()
        self._seen: tuple[int, float] | None = None
        self._looking: asyncio.Task[int | None] | None = None
        self._stopped_s = float("-inf")
        self.stopped = False

    @property
    def stopped_now(self) -> bool:
        """Whether it was found stopped within the last seconds; after that only another try can tell."""
        return self.stopped and self._loop.time() - self._stopped_s < FRESH_S

    def beat(self) -> None:
        """It stored something, or the broker is another one."""
        self._seen, self.stopped = None, False

    async def look(self) -> bool:
        """Whether nothing has arrived in it for a while, although the broker is well."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._last_seq(), name=f"look at {self._stream}")
        seq = await asyncio.shield(self._looking)
        now_s = self._loop.time()
        if seq is None:
            self.beat()
        elif self._seen is None or self._seen[0] != seq:
            self._seen, self.stopped = (seq, now_s), False
        elif now_s - self._seen[1] >= STILL_S:
            self.stopped, self._stopped_s = True, now_s
        return self.stopped

    async def _last_seq(self) -> int | None:
        """The last sequence of a stream without replicas; None when nobody says it in time."""
        first: asyncio.Future[Msg] = self._loop.create_future()
        inbox = self._link.expect(lambda message: None if first.done() else first.set_result(message))
        subject = f"$JS.API.STREAM.INFO.{self._stream}"
        try:
            if not self._link.client.is_connected or not self._link.send(subject, b"", inbox):
                return None
            async with asyncio.timeout(LOOK_S):
                message = await first
            info = _DECODE(message.data) if status_of(message) is None else _Info()
        except (TimeoutError, msgspec.MsgspecError):
            return None
        finally:
            self._link.forget(inbox)
            self._looking = None
        # Of several replicas a majority may be missing for a while: that is no full disk.
        alone = info.cluster is None or not info.cluster.replicas
        return info.state.last_seq if info.state is not None and alone else None
