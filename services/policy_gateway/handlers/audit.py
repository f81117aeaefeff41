"""`policy.stats|audit|verify`."""

from contracts.errors import Rejected
from contracts.policy import AuditQuery, AuditRow, AuditStats, AuditVerified, AuditVerify, PolicyStatistics
from services.policy_gateway.audit.reading import AuditReader
from services.policy_gateway.audit.verifying import verify
from services.runtime.bus import Bus
from services.runtime.rpc import Caller


class AuditHandlers:
    """Answers the verbs about what was done. `trusted` are the public keys whose signatures count."""

    def __init__(self, *, bus: Bus, reader: AuditReader, trusted: frozenset[str]) -> None:
        self._bus, self._reader, self._trusted = bus, reader, trusted

    async def stats(self, request: AuditStats, _caller: Caller) -> PolicyStatistics:
        """Calls and refusals, counted."""
        return await self._reader.statistics(request.since)

    async def rows(self, request: AuditQuery, _caller: Caller) -> list[AuditRow]:
        """Decisions with their ends."""
        return await self._reader.rows(request)

    async def verify(self, request: AuditVerify, _caller: Caller) -> AuditVerified:
        """Walk the chain. Raises Rejected("audit_broken") saying where."""
        if request.key is not None and not _is_key(request.key):
            raise Rejected("bad_request", "a key is 64 characters of hex", field="key")
        return await verify(self._bus, self._trusted if request.key is None else frozenset({request.key}))


def _is_key(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)
