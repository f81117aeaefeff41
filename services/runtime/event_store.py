"""The seam between actors and the log: what an event store is, whoever keeps it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol


class Recorded(NamedTuple):
    """One stored message. `seq` is its number in the whole stream.

    A `forged` one was put there by somebody who may not write there (see genuine.py). It reads as a commit that says
    nothing: whoever folds the log takes its sequence over, and not a word of it.
    """

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    forged: bool = False


class Conflict(Exception):
    """Somebody else appended first. `last_seq` is theirs when it is known."""

    def __init__(self, last_seq: int | None) -> None:
        self.last_seq = last_seq
        super().__init__(f"another writer was first (last sequence {last_seq})")


class EventStore(Protocol):
    """An append-only log with one subject per aggregate and optimistic concurrency on that subject.

    Laws (tests/conformance): an append is stored whole or not at all, once, also when its acknowledgement was lost;
    `expect` is the sequence of the last message of the subject that is known, 0 when there is none, and only what is
    not forged behind it is a conflict; reads are in order.
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
        """The newest message of a subject that is not forged."""
        ...

    async def newest(self, subject: str) -> int:
        """The sequence of a subject's newest message, forged or not, 0 when there is none, as who takes appends has it.

        `read` and `last` may be answered by a replica that is a moment behind; an append would not be. Raises Rejected
        jetstream_unavailable, nats_unavailable or timeout.
        """
        ...

    async def subjects(self, pattern: str) -> dict[str, int]:
        """Subjects that match `pattern` (`*` and `>`), with how many messages each has."""
        ...

    async def last_of_many(self, subjects: Sequence[str]) -> dict[str, Recorded]:
        """The newest message of each of `subjects` that has one that is not forged."""
        ...
