"""The event store in memory: the verified twin of the JetStream one, for tests and simulations."""

from collections.abc import AsyncIterator, Mapping, Sequence

from services.runtime.event_store import Conflict, Recorded
from services.runtime.genuine import void


def matches(pattern: str, subject: str) -> bool:
    """Whether `subject` matches a NATS `pattern` with `*` and `>`."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > index
        if index >= len(tokens) or token not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)


class MemoryEventStore:
    """One stream in memory. Not safe between threads; lost when the process ends."""

    def __init__(self) -> None:
        self._log: list[Recorded] = []
        self._by_subject: dict[str, list[Recorded]] = {}
        self._by_msg_id: dict[str, int] = {}

    async def append(
        self, subject: str, parts: Sequence[bytes], *, expect: int, msg_id: str, headers: Mapping[str, str]
    ) -> int:
        """See EventStore.append."""
        if msg_id in self._by_msg_id:
            return self._by_msg_id[msg_id]
        history = self._by_subject.setdefault(subject, [])
        fact = next((record.seq for record in reversed(history) if not record.forged), 0)
        if not fact <= expect <= (history[-1].seq if history else 0):
            raise Conflict(fact)
        for data in parts:
            record = Recorded(len(self._log) + 1, subject, bytes(data), {**headers, "Nats-Msg-Id": msg_id})
            self._log.append(record)
            history.append(record)
        self._by_msg_id[msg_id] = len(self._log)
        return len(self._log)

    def smuggle(self, subject: str) -> int:
        """Store what no writer of this stream wrote; whatever it says, its place is all that counts."""
        record = void(len(self._log) + 1, subject)
        self._log.append(record)
        self._by_subject.setdefault(subject, []).append(record)
        return record.seq

    async def read(self, subject: str, after: int = 0) -> AsyncIterator[Recorded]:
        """See EventStore.read."""
        for record in tuple(self._by_subject.get(subject, ())):
            if record.seq > after:
                yield record

    async def last(self, subject: str) -> Recorded | None:
        """See EventStore.last."""
        return self._last(subject)

    async def newest(self, subject: str) -> int:
        """See EventStore.newest."""
        history = self._by_subject.get(subject)
        return history[-1].seq if history else 0

    async def subjects(self, pattern: str) -> dict[str, int]:
        """See EventStore.subjects."""
        return {subject: len(kept) for subject, kept in self._by_subject.items() if kept and matches(pattern, subject)}

    async def last_of_many(self, subjects: Sequence[str]) -> dict[str, Recorded]:
        """See EventStore.last_of_many."""
        return {subject: found for subject in subjects if (found := self._last(subject)) is not None}

    def _last(self, subject: str) -> Recorded | None:
        return next((record for record in reversed(self._by_subject.get(subject, [])) if not record.forged), None)
