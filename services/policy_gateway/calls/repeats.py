"""A call of a task that was asked before: its recorded answer, the answer of whoever has it under way, or its closing.

Closing a call whose gateway died: what it left running is removed, then the answer `call_interrupted` is recorded (by
one gateway only), then the audit gets what it lacks: the decision, if the gateway died before it was stored, and the
end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from contracts.errors import Rejected
from contracts.policy import CallFinished, ToolDecided
from services.policy_gateway.audit.fingerprint import comparable
from services.policy_gateway.audit.log import AuditLog
from services.policy_gateway.audit.reading import AuditReader
from services.policy_gateway.calls.answers import Answer, denied, failed
from services.policy_gateway.calls.call import Call
from services.policy_gateway.calls.entries import finished_entry
from services.policy_gateway.calls.owners import Owners
from services.policy_gateway.calls.records import CallRecords, Record
from services.policy_gateway.decision.verdict import Deny
from services.runtime.clock import Clock
from services.runtime.event_store import Conflict

_SORTED: Final = msgspec.json.Encoder(order="sorted").encode
WAIT_MORE_S: Final = 10.0
"""So much longer than the call itself may take, one request waits for a call that another gateway has under way."""
Bury = Callable[[str], Awaitable[None]]


async def nothing_left(_call_id: str) -> None:
    """Where tools leave nothing running behind a dead gateway."""


class Repeats:
    """Answers what was asked before. `bury` removes what a call of a dead gateway may have left running."""

    def __init__(
        self, *, records: CallRecords, owners: Owners, audit: AuditLog, reader: AuditReader, clock: Clock, gateway: str,
        bury: Bury = nothing_left,
    ) -> None:  # fmt: skip
        self._records, self._owners, self._audit, self._reader = records, owners, audit, reader
        self._clock, self._gateway, self._bury = clock, gateway, bury

    async def answer(self, call: Call, asked: ToolDecided) -> Answer:
        """The one answer of a call that was claimed before. Raises Rejected: conflict, timeout."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + asked.timeout_ms / 1000 + WAIT_MORE_S
        while True:
            record = await self._records.read(call.id)
            if record is None:
                raise Rejected("internal", "the record of this call cannot be read", call=call.id)
            if not _same(asked, record.claimed.decided):
                raise Rejected("conflict", "this call of the task was another one", call=call.id)
            if record.finished is not None:
                return _answer(record.finished)
            left_s = end_s - loop.time()
            if left_s <= 0:
                raise Rejected("timeout", "another gateway still works on this call", call=call.id)
            if not await self._owners.has(record.claimed.decided.gateway, call.id, left_s):
                return await self.close(record)

    async def recorded(self, call_id: str) -> Answer | None:
        """The recorded answer, None when there is none."""
        record = await self._records.read(call_id)
        return _answer(record.finished) if record is not None and record.finished is not None else None

    async def close(self, record: Record) -> Answer:
        """End a claimed call whose gateway is gone; the answer that stands from now on."""
        entry = record.claimed.decided
        fresh = await self._records.read(entry.id)
        if fresh is not None and fresh.finished is not None:
            return _answer(fresh.finished)  # it was only just finished
        if entry.verdict == "allow" and entry.tool == "docker":
            await self._bury(entry.id)
        answer = failed(Rejected("call_interrupted"))
        if entry.verdict == "deny":
            answer = denied(Deny(entry.code, entry.rule, entry.detail))
        try:
            await self._records.finish(
                entry.id, CallFinished(self._gateway, 0.0, answer.value, answer.error), record.seq
            )
        except Conflict:
            return await self.recorded(entry.id) or answer
        if await self._reader.find(entry.id, record.claimed.audit_seq) is None:
            await self._audit.append(entry)
        if entry.verdict == "allow":
            await self._end(entry, answer, 0.0)
        return answer

    async def end_from_record(self, entry: ToolDecided) -> None:
        """Give the audit the end of an allowed call whose gateway died behind the decision."""
        record = await self._records.read(entry.id) if entry.run_id else None
        if record is None:
            if entry.tool == "docker":
                await self._bury(entry.id)
            await self._end(entry, failed(Rejected("call_interrupted")), 0.0)
        elif record.finished is None:
            await self.close(record)
        else:
            await self._end(entry, _answer(record.finished), record.finished.duration_ms)

    async def _end(self, entry: ToolDecided, answer: Answer, took_ms: float) -> None:
        await self._audit.append(finished_entry(entry, answer, took_ms, self._gateway, self._clock.now_ms()))


def same_call(one: Call, other: Call) -> bool:
    """Whether two requests for the same call ask for the same."""
    # As JSON: in Python true equals 1.
    return _SORTED((one.role, one.tool, one.asked.args, one.asked.opts)) == _SORTED(
        (other.role, other.tool, other.asked.args, other.asked.opts)
    )


def _same(asked: ToolDecided, first: ToolDecided) -> bool:
    if (asked.role, asked.tool, asked.opts) != (first.role, first.tool, first.opts):
        return False
    # A gateway of another home has another key; its word that this is the call stands: calls are named by their log.
    return asked.args_sha256 == first.args_sha256 or not comparable(asked.args_sha256, first.args_sha256)


def _answer(finished: CallFinished) -> Answer:
    return Answer(finished.value, finished.error, finished.cut)
