"""At a start: calls that were decided by a gateway that is dead now get the end they lack."""

import asyncio

from contracts.errors import Rejected
from contracts.streams import EVENTS_POLICY_GATEWAY
from services.policy_gateway.audit.reading import AuditReader
from services.policy_gateway.calls.owners import Owners
from services.policy_gateway.calls.repeats import Repeats
from services.runtime.bus import Bus
from services.runtime.lifecycle import Log

LOOK_BACK = 5_000
"""Commits before the end that a start looks at: a death can only have cut off the newest."""
RETRY_S = 5.0


async def recover(bus: Bus, reader: AuditReader, repeats: Repeats, owners: Owners, log: Log) -> int:
    """Close what dead gateways left open, until the broker lets it be done. How many calls were closed."""
    after: int | None = None
    while True:
        try:
            if after is None:  # found out once: what comes later is nobody's leftover
                info = await bus.api(f"STREAM.INFO.{EVENTS_POLICY_GATEWAY}")
                after = max(0, int(info["state"]["last_seq"]) - LOOK_BACK)
            return await _close(reader, repeats, owners, log, after)
        except Rejected as error:
            log.warning("recovery_waits", code=error.code, reason=error.message)
        await asyncio.sleep(RETRY_S)


async def _close(reader: AuditReader, repeats: Repeats, owners: Owners, log: Log, after: int) -> int:
    closed, alive = 0, dict[str, bool]()
    for entry in await reader.unfinished(after):
        if entry.gateway not in alive:
            # Asked for a call it may not have: only whether anybody answers counts.
            alive[entry.gateway] = await owners.lives(entry.gateway)
        if alive[entry.gateway]:
            continue
        await repeats.end_from_record(entry)
        closed += 1
        log.warning("call_interrupted", call=entry.id, role=entry.role, tool=entry.tool, gateway=entry.gateway)
    return closed
