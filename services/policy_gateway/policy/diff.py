"""What another policy would have decided on the calls of the past."""

import asyncio
from collections import Counter
from typing import Final

from contracts.errors import Rejected
from contracts.policy import PolicyDiff, PolicyDifference, ToolDecided, VerdictChange, VerdictWord
from services.policy_gateway.audit.reading import AuditReader
from services.policy_gateway.audit.redaction import restored
from services.policy_gateway.calls.judging import Judge
from services.policy_gateway.calls.unjudged import SHAPE_RULE, TASK_RULE
from services.policy_gateway.decision.verdict import Allow
from services.policy_gateway.policy.book import Version
from services.runtime.clock import rfc3339

CHANGES_MAX: Final = 10_000
BREATH: Final = 200
"""After so many judgements others get their turn."""
_BY_FACTS: Final = frozenset({"approval_required", "call_limit_exceeded"})
"""What the past looked like then is not known any more."""


async def difference(reader: AuditReader, judge: Judge, version: Version, asked: PolicyDiff) -> PolicyDifference:
    """Judge the recorded calls again by `version`."""
    if not 1 <= asked.limit <= CHANGES_MAX:
        raise Rejected("bad_request", "limit is out of bounds", field="limit", min=1, max=CHANGES_MAX)
    judged, not_judged, changed = 0, Counter[str](), list[VerdictChange]()
    more = 0
    async for _, entry in reader.places(since=asked.since):
        if not isinstance(entry, ToolDecided):
            continue
        why = _why_not(entry)
        if why:
            not_judged[why] += 1
            continue
        judged += 1
        if judged % BREATH == 0:
            await asyncio.sleep(0)
        change = _judged_again(entry, judge, version)
        if change is None:
            continue
        if len(changed) < asked.limit:
            changed.append(change)
        else:
            more += 1
    return PolicyDifference(version.number, version.digest, judged, dict(not_judged), changed, more)


def _why_not(entry: ToolDecided) -> str:
    """Why a call cannot be judged again; empty when it can."""
    if entry.code in _BY_FACTS:
        return entry.code
    if entry.code == "role_mismatch":
        return "role_mismatch"
    if entry.rule in (SHAPE_RULE, TASK_RULE):
        return "never_judged"
    if entry.rule == "task.tools":
        return "task_tools"
    return "" if entry.exact else "arguments_not_kept"


def _judged_again(entry: ToolDecided, judge: Judge, version: Version) -> VerdictChange | None:
    verdict = judge.again(entry, restored(entry.args), version)
    now: VerdictWord = "allow" if isinstance(verdict, Allow) else "deny"
    code = "" if isinstance(verdict, Allow) else verdict.code
    if (now, code) == (entry.verdict, entry.code):
        return None
    return VerdictChange(
        id=entry.id, at=rfc3339(entry.at_ms), role=entry.role, tool=entry.tool, args=entry.args, was=entry.verdict,
        was_code=entry.code, now=now, now_code=code, now_rule=verdict.rule,
    )  # fmt: skip
