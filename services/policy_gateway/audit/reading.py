"""Reading the audit: entries since a time, decisions with their ends, statistics, and decisions without an end."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Final, NamedTuple

from contracts.codec import Undecodable
from contracts.errors import Rejected
from contracts.limits import AUDIT_ROWS_MAX
from contracts.policy import (
    ATTACKS,
    AuditEvent,
    AuditQuery,
    AuditRow,
    CallsUnjudged,
    PolicyStatistics,
    ToolDecided,
    ToolFinished,
)
from contracts.streams import EVENTS_POLICY_GATEWAY
from services.policy_gateway.audit.log import AUDIT_CODEC, AUDIT_SUBJECT
from services.runtime.bus import Bus
from services.runtime.clock import Clock, rfc3339
from services.runtime.lifecycle import Log

_DURATION: Final = re.compile(r"(\d{1,6})(ms|s|m|h|d|w)\Z")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
BREATH: Final = 500
"""After so many entries others get their turn: a long log is read while calls are judged."""
CANDIDATES_MAX: Final = 20_000
NAMED_ATTACKS: Final = ATTACKS[:5]
"""Kinds that statistics show also when there was none."""


def since_ms(text: str, now_ms: int) -> int:
    """The moment that `7d`, `12h` or an RFC 3339 time means. Raises Rejected("bad_request")."""
    found = _DURATION.match(text)
    if found:
        return max(0, now_ms - int(found.group(1)) * _UNIT_MS[found.group(2)])
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("no time zone")
        return max(0, int(at.timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        hint = "say 7d, 12h, 30m or 2026-11-20T17:00:00Z"
        raise Rejected("bad_request", "since is neither a duration nor a time", field="since", hint=hint) from error


class Place(NamedTuple):
    """An entry, and the sequence of the commit that holds it."""

    seq: int
    entry: AuditEvent


class AuditReader:
    """Reads the stored chain; nothing is kept in memory but what one question needs."""

    def __init__(self, bus: Bus, clock: Clock, log: Log) -> None:
        self._bus, self._clock, self._log = bus, clock, log

    async def places(self, *, since: str | None = None, after: int = 0) -> AsyncGenerator[Place, None]:
        """Entries with their sequences, oldest first: all, those `since`, or those behind a sequence."""
        from_ms = 0 if since is None else since_ms(since, self._clock.now_ms())
        if since is not None:
            first = await self._bus.first_since(EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT, rfc3339(from_ms))
            if not first:
                return
            after = max(after, first - 1)
        read = 0
        async for record in self._bus.history(EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT, after):
            try:
                events = AUDIT_CODEC.decode(record.data, skip_unknown=True).events
            except Undecodable as error:
                self._log.error("audit_stray", seq=record.seq, reason=str(error)[:500])
                continue
            read += len(events)
            if read >= BREATH:
                read = 0
                await asyncio.sleep(0)
            for entry in events:
                if entry.at_ms >= from_ms:
                    yield Place(record.seq, entry)

    async def statistics(self, since: str | None) -> PolicyStatistics:
        """Calls, refusals, and refusals by kind; the kinds add up."""
        total = 0
        attacks = dict.fromkeys(NAMED_ATTACKS, 0)
        async for _, entry in self.places(since=since):
            if isinstance(entry, ToolDecided):
                total += 1
            elif isinstance(entry, CallsUnjudged):
                total += entry.count
            if isinstance(entry, ToolDecided | ToolFinished) and entry.attack:
                attacks[entry.attack] = attacks.get(entry.attack, 0) + 1
        return PolicyStatistics(total, sum(attacks.values()), attacks)

    async def rows(self, query: AuditQuery) -> list[AuditRow]:
        """The newest decisions that fit, with their ends."""
        if not 1 <= query.limit <= AUDIT_ROWS_MAX:
            raise Rejected("bad_request", "limit is out of bounds", field="limit", min=1, max=AUDIT_ROWS_MAX)
        fits = _filter(query)
        found: OrderedDict[str, tuple[ToolDecided, ToolFinished | None]] = OrderedDict()
        async for _, entry in self.places(since=query.since):
            if isinstance(entry, ToolDecided) and fits(entry):
                if query.code is None or entry.verdict == "allow" or entry.code == query.code:
                    found[entry.id] = (entry, None)
            elif isinstance(entry, ToolFinished) and entry.id in found:
                if query.code is None or entry.code == query.code:
                    found[entry.id] = (found[entry.id][0], entry)
                else:
                    del found[entry.id]
            if len(found) > CANDIDATES_MAX:
                found.popitem(last=False)
        if query.code is not None:
            # What has not ended has no code yet.
            found = OrderedDict((id_, pair) for id_, pair in found.items() if pair[1] or pair[0].code == query.code)
        return [_row(*pair) for pair in [*found.values()][-query.limit :]]

    async def find(self, call_id: str, after: int) -> ToolDecided | None:
        """The decision of one call behind a sequence, None when it was never stored."""
        async with aclosing(self.places(after=after)) as places:
            async for _, entry in places:
                if isinstance(entry, ToolDecided) and entry.id == call_id:
                    return entry
        return None

    async def unfinished(self, after: int) -> list[ToolDecided]:
        """Calls that were allowed behind a sequence and have no end, oldest first."""
        found: dict[str, ToolDecided] = {}
        async for _, entry in self.places(after=after):
            if isinstance(entry, ToolDecided) and entry.verdict == "allow":
                found[entry.id] = entry
            elif isinstance(entry, ToolFinished):
                found.pop(entry.id, None)
        return list(found.values())


def _filter(query: AuditQuery) -> Callable[[ToolDecided], bool]:
    wanted = {
        "role": query.role,
        "tool": query.tool,
        "run_id": query.run,
        "task_id": query.task,
        "verdict": query.verdict,
    }
    given = {name: value for name, value in wanted.items() if value is not None}

    def fits(entry: ToolDecided) -> bool:
        return all(getattr(entry, name) == value for name, value in given.items())

    return fits


def _row(entry: ToolDecided, end: ToolFinished | None) -> AuditRow:
    return AuditRow(
        n=entry.n, at=rfc3339(entry.at_ms), id=entry.id, verdict=entry.verdict, role=entry.role, tool=entry.tool,
        by=entry.by, code=end.code if end and end.code else entry.code, rule=entry.rule,
        attack=entry.attack or (end.attack if end else ""), args=entry.args, args_sha256=entry.args_sha256,
        detail=entry.detail, run_id=entry.run_id, task_id=entry.task_id, attempt=entry.attempt, call=entry.call,
        workspace=entry.workspace, policy_version=entry.policy_version, ended=rfc3339(end.at_ms) if end else None,
        duration_ms=end.duration_ms if end else None, exit=end.exit if end else None,
        bytes=end.bytes if end else None,
    )  # fmt: skip
