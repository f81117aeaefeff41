"""Calls that cannot be judged: malformed ones, and those that belong to no attempt that is under way.

Each leaves an audit entry like any other call, up to UNJUDGED_ENTRIES_PER_WINDOW_MAX a window; the rest of the window
is one entry that counts them by reason. So a flood of them neither fills the disk nor goes without a trace.
"""

from collections import Counter
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import UNJUDGED_ENTRIES_PER_WINDOW_MAX, UNJUDGED_WINDOW_S
from contracts.policy import CallsUnjudged, ToolDecided
from services.policy_gateway.audit.fingerprint import Fingerprint
from services.policy_gateway.audit.log import AuditLog
from services.policy_gateway.audit.redaction import clean, keep
from services.policy_gateway.calls.call import Call
from services.policy_gateway.policy.book import PolicyBook
from services.runtime.clock import Clock
from services.runtime.ids import Ids
from services.runtime.lifecycle import Log
from services.runtime.redaction import masked

SHAPE_RULE: Final = "call.shape"
TASK_RULE: Final = "call.task"
NAME_CHARS_MAX: Final = 64
SEARCHED_CHARS_MAX: Final = 1_024
"""So much of a name is searched for secrets before it is cut: half a secret looks like none."""
_SHOWN: Final = ("field", "attempt", "status", "max", "requested")
"""Of what an error says, the part that is worth keeping."""


class Unjudged:
    """Sees to it that no call goes without a trace because it could not be judged."""

    def __init__(
        self, *, audit: AuditLog, book: PolicyBook, clock: Clock, ids: Ids, log: Log, gateway: str,
        fingerprint: Fingerprint,
    ) -> None:  # fmt: skip
        self._audit, self._book, self._clock, self._ids, self._log = audit, book, clock, ids, log
        self._gateway, self._fingerprint = gateway, fingerprint
        self._since_ms, self._since_s = clock.now_ms(), clock.monotonic_s()
        self._entries = 0
        self._counted: Counter[str] = Counter()

    async def malformed(self, role: str, tool: str, by: str, data: bytes, error: Rejected) -> None:
        """A message that is no call; of what it holds only a fingerprint is kept."""
        entry = self._entry(role, tool, by, SHAPE_RULE, error, {}, self._fingerprint.of(data))
        await self._tell(entry)

    async def call(self, call: Call, error: Rejected) -> None:
        """A call whose task is not at this attempt, or that was another one before."""
        kept, task = keep(call.asked.args, call.asked.opts, self._fingerprint), call.of
        entry = self._entry(call.role, call.tool, call.by, TASK_RULE, error, kept.args, kept.sha256)
        if task is not None:
            entry = msgspec.structs.replace(
                entry, run_id=_name(task.run_id), task_id=_name(task.task_id), attempt=task.attempt, call=task.call,
            )  # fmt: skip
        await self._tell(entry)

    def count(self, reason: str) -> None:
        """One that gets no entry of its own."""
        self._counted[reason] += 1

    async def fold(self, *, at_once: bool = False) -> None:
        """Store the count of a window that is over, and begin the next. Never raises."""
        if not at_once and self._clock.monotonic_s() - self._since_s < UNJUDGED_WINDOW_S:
            return
        counted, since_ms = self._counted, self._since_ms
        self._counted, self._entries = Counter(), 0
        self._since_ms, self._since_s = self._clock.now_ms(), self._clock.monotonic_s()
        if not counted:
            return
        entry = CallsUnjudged(
            n=0, prev="", hash="", at_ms=self._since_ms, gateway=self._gateway, since_ms=since_ms,
            count=counted.total(), reasons=dict(counted),
        )  # fmt: skip
        try:
            await self._audit.append(entry)
        except Rejected as error:
            self._counted.update(counted)  # it is told with the next window
            self._log.warning("unjudged_not_stored", code=error.code, count=counted.total())

    async def _tell(self, entry: ToolDecided) -> None:
        await self.fold()
        if self._entries >= UNJUDGED_ENTRIES_PER_WINDOW_MAX:
            self.count(entry.code)
            return
        self._entries += 1
        try:
            await self._audit.append(entry)
        except Rejected:
            self.count(entry.code)

    def _entry(self, role: str, tool: str, by: str, rule: str, error: Rejected, args: Any, digest: str) -> ToolDecided:
        version = self._book.current
        detail = {key: value for key, value in error.detail.items() if key in _SHOWN}
        return ToolDecided(
            # Never the id of the call: it may be that of one which was judged.
            n=0, prev="", hash="", at_ms=self._clock.now_ms(), id=self._ids.new(), verdict="deny",
            role=_name(role), tool=_name(tool), by=masked(by), gateway=self._gateway,
            policy_version=version.number, policy_digest=version.digest, rule=rule, args=args, args_sha256=digest,
            code=error.code, detail=clean(detail),
        )  # fmt: skip


def _name(word: str) -> str:
    """A word of the caller's own as the audit may show it."""
    return masked(word[:SEARCHED_CHARS_MAX])[:NAME_CHARS_MAX]
