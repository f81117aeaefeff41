"""Turns the events of one decision into one commit and appends it: headers, size, message id."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from contracts.codec import CommitCodec
from contracts.commit import HEADER_SUMMARY, HEADER_TYPES, Commit
from contracts.errors import Rejected
from services.runtime.clock import rfc3339
from services.runtime.event_store import EventStore
from services.runtime.mailbox import Actor, Input
from services.runtime.telemetry import TRACEPARENT

E = TypeVar("E")

_ENCODE: Final = msgspec.json.Encoder().encode


class CommitWriter(Generic[E]):
    """Appends the commits of one aggregate. `bytes_max` bounds one message; a larger commit is stored in parts."""

    def __init__(self, service: str, codec: CommitCodec[E], store: EventStore, bytes_max: int) -> None:
        self._service, self._codec, self._store, self._bytes_max = service, codec, store, bytes_max
        # Two writers that race must never share a message id, or the broker would take one for the other.
        self._nonce = secrets.token_hex(6)
        self._count = 0

    async def append(
        self,
        actor: Actor[Any, Any, E],
        first: Input[Any, Any, E],
        events: list[E],
        summary: Mapping[str, Any] | None,
        now_ms: int,
    ) -> int:
        """Append what was decided because of `first` (and whatever waited with it); the sequence. Raises Conflict."""
        # Results and time speak for themselves, not for whoever spoke last.
        by = first.by or self._service
        actor.corr = first.corr or actor.corr or actor.actor_id
        commit = Commit(at=rfc3339(now_ms), by=by, cause=first.message_id, corr=actor.corr, events=events)
        headers = {HEADER_TYPES: self._codec.types_header(events)}
        if summary is not None:
            headers[HEADER_SUMMARY] = _ENCODE(summary).decode()
        if actor.trace:
            headers[TRACEPARENT] = actor.trace
        self._count += 1
        return await self._store.append(
            actor.subject,
            self._parts(commit),
            expect=actor.seq,
            msg_id=f"{self._nonce}-{self._count}",
            headers=headers,
        )

    def _parts(self, commit: Commit[E]) -> Sequence[bytes]:
        """The commit as one message, or as several when it is larger than the broker takes; all or none are stored."""
        data = self._codec.encode(commit)
        if len(data) <= self._bytes_max:
            return (data,)
        if len(commit.events) == 1:
            raise Rejected("too_large", "one event is larger than the broker takes", bytes=len(data))
        half = len(commit.events) // 2
        return [
            part
            for events in (commit.events[:half], commit.events[half:])
            for part in self._parts(msgspec.structs.replace(commit, events=events))
        ]
