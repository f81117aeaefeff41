"""Snapshots: a folded state kept beside the log, so that a long run wakes fast. Losing one loses nothing."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from contracts import subjects
from contracts.errors import Rejected
from contracts.streams import SNAPSHOTS
from services.runtime.bus import Bus
from services.runtime.publisher import Stored

S = TypeVar("S")

HEADER_AT_SEQ: Final = "Htdag-Snapshot-Seq"
HEADER_FORMAT: Final = "Htdag-Snapshot-Format"


class Snapshots(Protocol[S]):
    """Where a host keeps snapshots."""

    def save(self, subject: str, seq: int, state: S) -> None:
        """Keep the state after sequence `seq`. Encodes at once, stores in the background; failing is harmless."""
        ...

    async def load(self, subject: str) -> tuple[S, int] | None:
        """The newest snapshot of an aggregate that today's code can read, with its sequence."""
        ...


class JetStreamSnapshots(Generic[S]):
    """The newest snapshot per aggregate in one stream.

    `dump` turns a state into bytes, `restore` back; `format_id` changes whenever the shape of the state does, and
    snapshots of another format are ignored.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        format_id: str,
        dump: Callable[[S], bytes],
        restore: Callable[[bytes], S],
        bytes_max: int,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bus, self._format, self._dump, self._restore = bus, format_id, dump, restore
        self._bytes_max, self._log = bytes_max, log

    def save(self, subject: str, seq: int, state: S) -> None:
        """See Snapshots.save. A state larger than a message may be is not kept: it is folded from the log."""
        data = self._dump(state)
        if len(data) > self._bytes_max:
            return
        stored = self._bus.store(
            _beside(subject),
            data,
            stream=SNAPSHOTS,
            msg_id=f"{subject}@{seq}",
            headers={HEADER_AT_SEQ: str(seq), HEADER_FORMAT: self._format},
        )
        stored.add_done_callback(self._note)

    def _note(self, stored: "asyncio.Future[Stored]") -> None:
        if not stored.cancelled() and stored.exception() is not None:
            self._log(f"snapshot not kept: {stored.exception()}")

    async def load(self, subject: str) -> tuple[S, int] | None:
        """See Snapshots.load."""
        try:
            found = await self._bus.last(SNAPSHOTS, _beside(subject))
        except Rejected:
            return None
        if found is None or found.headers.get(HEADER_FORMAT) != self._format:
            return None
        return self._restore(found.data), int(found.headers[HEADER_AT_SEQ])


def _beside(subject: str) -> str:
    parts = subjects.parse_events(subject)
    return subjects.snapshot(parts.service, parts.aggregate, parts.aggregate_id)
