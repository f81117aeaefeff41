"""The audit entries of one call, not chained yet: its decision and its end. Pure."""

import msgspec

from contracts.policy import ToolDecided, ToolFinished
from services.policy_gateway.audit.attacks import attack_of
from services.policy_gateway.audit.redaction import Kept, clean
from services.policy_gateway.calls.answers import Answer
from services.policy_gateway.calls.call import Call
from services.policy_gateway.calls.judging import Judgement
from services.policy_gateway.decision.verdict import Allow
from services.runtime.redaction import masked


def decided_entry(
    call: Call, kept: Kept, judgement: Judgement, *, gateway: str, sandbox: str, now_ms: int
) -> ToolDecided:
    """The audit entry of a verdict, not chained yet. Role, tool and caller are the caller's own words too."""
    verdict, task = judgement.verdict, call.of
    workspace = judgement.workspace
    entry = ToolDecided(
        n=0, prev="", hash="", at_ms=now_ms, id=call.id, verdict="allow", role=masked(call.role),
        tool=masked(call.tool), by=masked(call.by), gateway=gateway, policy_version=judgement.version.number,
        policy_digest=judgement.version.digest, rule=verdict.rule, args=kept.args, args_sha256=kept.sha256,
        opts=kept.opts, exact=kept.exact, profile=workspace.profile if workspace else "",
        sandbox=sandbox, workspace=workspace.name if workspace else "",
        run_id=task.run_id if task else "", task_id=task.task_id if task else "",
        attempt=task.attempt if task else 0, call=task.call if task else 0,
    )  # fmt: skip
    if isinstance(verdict, Allow):
        return msgspec.structs.replace(entry, timeout_ms=verdict.timeout_ms)
    attack = attack_of(verdict.code, call.tool, call.asked.args)
    return msgspec.structs.replace(
        entry, verdict="deny", code=verdict.code, detail=clean(verdict.detail, kept.masking), attack=attack
    )


def finished_entry(entry: ToolDecided, answer: Answer, took_ms: float, gateway: str, now_ms: int) -> ToolFinished:
    """The end of an allowed call. A refusal that only showed while it ran is an attack too."""
    value = answer.value if isinstance(answer.value, dict) else {}
    code = value.get("exit")
    return ToolFinished(
        n=0, prev="", hash="", at_ms=now_ms, id=entry.id, role=entry.role, tool=entry.tool, by=entry.by,
        gateway=gateway, duration_ms=took_ms, code=answer.code, exit=code if type(code) is int else None,
        bytes=answer.size, truncated=answer.cut or value.get("truncated") is True,
        attack=attack_of(answer.code, entry.tool, entry.args) if answer.refused else "",
        run_id=entry.run_id, task_id=entry.task_id, attempt=entry.attempt, call=entry.call,
    )  # fmt: skip
