"""Snapshots: a folded state kept beside the log, so that a long run wakes fast. Losing one loses nothing."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from contracts import subjects
from contracts.errors import Rejected
from contracts.streams import SNAPSHOTS
from services.runtime.bus import Bus
from services.runtime.direct_get import STORED_AT
from services.runtime.event_store import Recorded
from services.runtime.publisher import Stored

S = TypeVar("S")

HEADER_AT_SEQ: Final = "Htdag-Snapshot-Seq"
HEADER_FORMAT: Final = "Htdag-Snapshot-Format"
TOO_LARGE_MAX: Final = 10_000
"""How many aggregates are remembered to be too large for a snapshot."""


class Kept(NamedTuple, Generic[S]):
    """A state after the commit at `seq` (from 1). `stored_at` is the stamp of its broker, "" where there is none."""

    state: S
    seq: int
    stored_at: str = ""


class Snapshots(Protocol[S]):
    """Where a host keeps snapshots."""

    def every(self, state: S) -> int:
        """How many events at least should lie between two snapshots of such a state: big ones cost more."""
        ...

    def save(self, subject: str, seq: int, state: S) -> None:
        """Keep the state after sequence `seq`. Encodes at once, stores in the background. Never raises."""
        ...

    async def load(self, subject: str) -> Kept[S] | None:
        """The newest snapshot of an aggregate that today's code can read. Never raises."""
        ...


class JetStreamSnapshots(Generic[S]):
    """The newest snapshot per aggregate in one stream.

    `dump` turns a state into bytes, `restore` back; `format_id` changes whenever the shape of the state does, and
    snapshots of another format are ignored. `every` is how far apart snapshots of a state should lie, in events. What
    cannot be kept or read costs a line of the log and time, nothing else: the truth is in the events.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        format_id: str,
        dump: Callable[[S], bytes],
        restore: Callable[[bytes], S],
        bytes_max: int,
        every: Callable[[S], int] = lambda _: 0,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bus, self._format, self._dump, self._restore = bus, format_id, dump, restore
        self._bytes_max, self._every, self._log = bytes_max, every, log
        self._too_large: dict[str, None] = {}

    def every(self, state: S) -> int:
        """See Snapshots.every."""
        return self._every(state)

    def save(self, subject: str, seq: int, state: S) -> None:
        """See Snapshots.save. A state larger than `bytes_max` is not kept, nor tried again: states grow."""
        if subject in self._too_large:
            return
        try:
            data = self._dump(state)
        except Exception as error:  # whatever is wrong with it: the commit stands, and the log has everything
            self._log(f"no snapshot of {subject}: {error!r}")
            return
        if len(data) > self._bytes_max:
            if len(self._too_large) >= TOO_LARGE_MAX:
                self._too_large.clear()
            self._too_large[subject] = None
            self._log(f"no snapshot of {subject}: {len(data)} bytes are more than {self._bytes_max}")
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
            self._log(f"snapshot not kept: {stored.exception()!r}")

    async def load(self, subject: str) -> Kept[S] | None:
        """See Snapshots.load."""
        try:
            found = await self._bus.last_stored(SNAPSHOTS, _beside(subject))
        except Rejected as error:
            self._log(f"snapshot of {subject} not read: {error!r}")
            return None
        if found is None or found.forged:
            return None
        kept_as = found.headers.get(HEADER_FORMAT)
        if kept_as != self._format:
            self._log(f"snapshot of {subject} ignored: its format is {kept_as}, not {self._format}")
            return None
        try:
            return Kept(self._restore(found.data), _seq_of(found), found.headers.get(STORED_AT, ""))
        except Exception as error:  # bytes that are no snapshot can break `restore` anywhere
            self._log(f"snapshot of {subject} ignored: {error!r}")
            return None


def _seq_of(found: Recorded) -> int:
    seq = int(found.headers[HEADER_AT_SEQ])
    if seq < 1:
        raise ValueError(f"sequence {seq}")
    return seq


def _beside(subject: str) -> str:
    parts = subjects.parse_events(subject)
    return subjects.snapshot(parts.service, parts.aggregate, parts.aggregate_id)
