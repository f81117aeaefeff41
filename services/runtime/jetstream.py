"""The event store on JetStream: one stream per writing service, one subject per aggregate."""

from collections.abc import AsyncIterator, Mapping, Sequence

from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from services.runtime.publisher import Write


class JetStreamEventStore:
    """See EventStore. Appends of one process share a group commit."""

    def __init__(self, bus: Bus, stream: str) -> None:
        self._bus, self._stream = bus, stream
        self._writer = bus.writer(stream)

    async def append(
        self, subject: str, parts: Sequence[bytes], *, expect: int, msg_id: str, headers: Mapping[str, str]
    ) -> int:
        """See EventStore.append."""
        write = Write(subject, parts, msg_id, expect, headers)
        self._writer.put(write)
        return (await write.future).seq

    def read(self, subject: str, after: int = 0) -> AsyncIterator[Recorded]:
        """See EventStore.read."""
        return self._bus.history(self._stream, subject, after)

    async def last(self, subject: str) -> Recorded | None:
        """See EventStore.last."""
        return await self._bus.last(self._stream, subject)

    async def newest(self, subject: str) -> int:
        """See EventStore.newest."""
        return await self._bus.newest(self._stream, subject)

    async def subjects(self, pattern: str) -> dict[str, int]:
        """See EventStore.subjects."""
        return await self._bus.subjects(self._stream, pattern)

    async def last_of_many(self, subjects: Sequence[str]) -> dict[str, Recorded]:
        """See EventStore.last_of_many."""
        return await self._bus.last_of_many(self._stream, subjects)
