"""How many pages a task has fetched so far, over all gateways: counted in the audit, read anew before each fetch."""

import asyncio
from collections import OrderedDict
from typing import Final

from contracts.codec import Undecodable
from contracts.errors import Rejected
from contracts.policy import CallOf, ToolDecided
from contracts.streams import EVENTS_POLICY_GATEWAY
from services.policy_gateway.audit.log import AUDIT_CODEC, AUDIT_SUBJECT
from services.runtime.bus import Bus

TASKS_REMEMBERED_MAX: Final = 1_000
ORDER_REMEMBERED_MAX: Final = 1_000
"""Of one task; far more than may be under way at once."""
LOOKS_MAX: Final = 40
LOOK_AGAIN_S: Final = 0.05


class _Count:
    """The fetches of one task up to a sequence of the audit; None: nothing was read yet."""

    __slots__ = ("fetched", "lock", "order", "seq")

    def __init__(self) -> None:
        self.seq: int | None = None
        self.fetched = 0
        self.order: dict[str, int] = {}
        self.lock = asyncio.Lock()  # a task asks for several tools at once


class FetchCounts:
    """One count per task of the recent past; what is forgotten is counted again."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()

    async def count(self, call: CallOf, since: str) -> int:
        """Fetches of this task that were allowed; its run began at `since` (RFC 3339)."""
        key = (call.run_id, call.task_id)
        known = self._counts.setdefault(key, _Count())
        self._counts.move_to_end(key)
        if len(self._counts) > TASKS_REMEMBERED_MAX:
            self._counts.popitem(last=False)
        mark = call.run_id.encode()
        async with known.lock:
            if known.seq is None:
                known.seq = await self._before(since)
            async for record in self._bus.history(EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT, known.seq):
                known.seq = record.seq
                if mark in record.data:
                    for call_id in _fetches(record.data, key):
                        known.fetched += 1
                        known.order[call_id] = known.fetched
                        if len(known.order) > ORDER_REMEMBERED_MAX:
                            del known.order[next(iter(known.order))]
        return known.fetched

    async def place(self, call: CallOf, since: str, call_id: str) -> int:
        """As which fetch of its task a call stands in the audit, counted from 1. Its decision is stored by now.

        Raises Rejected("timeout") when its decision cannot be found: then it is not carried out.
        """
        for _ in range(LOOKS_MAX):
            await self.count(call, since)
            known = self._counts.get((call.run_id, call.task_id))
            if known is not None and call_id in known.order:
                return known.order[call_id]
            # A replica is a moment behind the one that acknowledged it.
            await asyncio.sleep(LOOK_AGAIN_S)
        raise Rejected("timeout", "the audit does not show this call in time")

    async def _before(self, since: str) -> int:
        """The last sequence of the audit that is older than `since`."""
        last = await self._bus.last(EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT)
        first = await self._bus.first_since(EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT, since)
        if first:
            return first - 1
        # Nothing of this run yet: a long audit is not read for that.
        return last.seq if last else 0


def _fetches(data: bytes, key: tuple[str, str]) -> list[str]:
    try:
        entries = AUDIT_CODEC.decode(data, skip_unknown=True).events
    except Undecodable:
        return []  # `verify` tells of it
    return [
        entry.id
        for entry in entries
        if isinstance(entry, ToolDecided)
        and entry.tool == "http"
        and entry.verdict == "allow"
        and (entry.run_id, entry.task_id) == key
    ]
