"""The seam between actors and the log: what an event store is, whoever keeps it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol


class Recorded(NamedTuple):
    """One stored message. `seq` is its number in the whole stream."""

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]


class Conflict(Exception):
    """Somebody else appended first. `last_seq` is theirs when it is known."""

    def __init__(self, last_seq: int | None) -> None:
        self.last_seq = last_seq
        super().__init__(f"another writer was first (last sequence {last_seq})")


class EventStore(Protocol):
    """An append-only log with one subject per aggregate and optimistic concurrency on that subject.

    Laws (tests/conformance): an append is stored whole or not at all, once, also when its acknowledgement was lost;
    `expect` is the sequence of the last message of the subject, 0 when there is none; reads are in order.
    """

    async def append(
        self, subject: str, parts: Sequence[bytes], *, expect: int, msg_id: str, headers: Mapping[str, str]
    ) -> int:
        """Store `parts` as consecutive messages and return the sequence of the last.

        The same `msg_id` again returns the same sequence. Raises Conflict, or Rejected with storage_full,
        too_large or nats_unavailable when the outcome is definite that nothing was stored or cannot be known.
        """
        ...

    def read(self, subject: str, after: int = 0) -> AsyncIterator[Recorded]:
        """The messages of one subject behind sequence `after`, in order."""
        ...

    async def last(self, subject: str) -> Recorded | None:
        """The newest message of a subject."""
        ...

    async def newest(self, subject: str) -> int:
        """The sequence of a subject's newest message, 0 when there is none, as whoever takes appends has it.

        `read` and `last` may be answered by a replica that is a moment behind; an append would not be. Raises Rejected
        jetstream_unavailable, nats_unavailable or timeout.
        """
        ...

    async def subjects(self, pattern: str) -> dict[str, int]:
        """Subjects that match `pattern` (`*` and `>`), with how many messages each has."""
        ...

    async def last_of_many(self, subjects: Sequence[str]) -> dict[str, Recorded]:
        """The newest message of each of `subjects` that has one."""
        ...
