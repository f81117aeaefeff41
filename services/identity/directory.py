"""All accounts, as the newest commit of each sums it up."""

import msgspec

from contracts.commit import HEADER_SUMMARY
from contracts.identity import UserKind
from contracts.subjects import events, parse_events
from services.runtime.event_store import EventStore


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One account; the other fields are those of the decider's summary."""

    user_id: str = ""
    name: str
    kind: UserKind
    mfa: bool
    password: bool
    until_ms: int
    for_good: bool
    failures: int
    at_ms: int


class Directory:
    """Reads the accounts from the log."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def entries(self) -> list[Entry]:
        """Every account, by its key."""
        known = await self._store.subjects(events("identity", "user", "*"))
        newest = await self._store.last_of_many([*known])
        return [
            msgspec.structs.replace(
                msgspec.json.decode(record.headers[HEADER_SUMMARY], type=Entry),
                user_id=parse_events(subject).aggregate_id,
            )
            for subject, record in sorted(newest.items())
        ]
