"""Tasks that a human must release: which they are, what exactly is shown, and what an answer leads to. Pure."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from contracts import release
from contracts.approval import APPROVAL_TIMEOUT_DEFAULT_MS, TakeApproval, action_digest
from contracts.errors import failure
from contracts.run import RunEvent, TaskFailed
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.task import ApprovalNode
from services.executor.run.state import Gate, Run, TaskRecord

_ENCODE: Final = msgspec.json.Encoder().encode


class Gating(NamedTuple):
    """How gates are kept. `auto_admin` lets admin tasks start by themselves; nodes that ask for a human still wait."""

    auto_admin: bool = False
    timeout_ms: int = APPROVAL_TIMEOUT_DEFAULT_MS


def waits_for_human(task: TaskRecord, gating: Gating) -> bool:
    """Whether the next attempt of a gated task needs its gate; what the policy asks for, no setting here waives."""
    return task.human or type(task.spec.node) is ApprovalNode or not gating.auto_admin


def gate_id(run_id: str, task_id: str, attempt: int) -> str:
    """The id of the gate before one attempt, the same after every crash."""
    return "apr-" + hashlib.sha256(f"{run_id}/{task_id}/{attempt}".encode()).hexdigest()[:20]


def action_of(run: Run, task: TaskRecord) -> dict[str, Any]:
    """Everything that will be done, as people are shown it. What a task says never changes, so neither does this."""
    return release.action_of(task.spec, run.options.workspace)


def asked(run: Run, task: TaskRecord, gating: Gating, now_ms: int) -> TaskApprovalRequested | TaskFailed:
    """The request for the next attempt. An approval node's own timeout is that of its gate.

    A task of which nobody knew that it needs a human may be too long to be shown to one: it fails.
    """
    attempt = task.attempt + 1
    if not release.is_gated(task.spec) and len(_ENCODE(action_of(run, task))) > release.SHOWN_BYTES_MAX:
        error = failure("approval_required", "the task is too long to be shown to a human", max=release.SHOWN_BYTES_MAX)
        return TaskFailed(task.spec.id, task.attempt, error)
    own_ms = task.spec.timeout_ms if type(task.spec.node) is ApprovalNode else None
    expires_at_ms = min(now_ms + (own_ms or gating.timeout_ms), run.deadline_at_ms)
    digest = action_digest(action_of(run, task))
    return TaskApprovalRequested(
        task.spec.id, attempt, gate_id(run.run_id, task.spec.id, attempt), digest, expires_at_ms
    )


def expired(task: TaskRecord) -> TaskFailed:
    """Nobody released it in time, or it could not begin before its release ran out."""
    return _refused(task, "approval_expired", expires_at_ms=task.deadline_at_ms)


def released(gate: Gate) -> dict[str, Any]:
    """The result of an approval node."""
    at = datetime.fromtimestamp(gate.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return {"approved_by": gate.user, "at": at.replace("+00:00", "Z"), "step": gate.step}


def take_approval(command: TakeApproval, run: Run, now_ms: int) -> Sequence[RunEvent]:
    """Judge the answer of a gate: only the first one of the gate that is waited for counts."""
    task = run.tasks.get(command.task_id)
    gate = task.gate if task is not None else None
    if task is None or gate is None or task.status != "waiting_approval" or command.run_id != run.run_id:
        return ()
    if command.approval_id != gate.gate_id or command.attempt != task.attempt:
        return ()
    if command.outcome == "expired" or (command.outcome == "granted" and now_ms >= gate.expires_at_ms):
        return (expired(task),)
    if command.outcome == "denied":
        return (_refused(task, "approval_denied", user=command.user, reason=command.reason),)
    # What was shown must be what will be done, whatever identity has been told meanwhile.
    exact = gate.digest == command.digest == action_digest(action_of(run, task))
    if command.outcome == "stale" or not exact:
        return (_refused(task, "approval_stale", digest=gate.digest, shown=command.digest),)
    if command.kind != "human" or not command.user or command.step is None:
        return (_refused(task, "approval_denied", user=command.user, reason="only a human may release this"),)
    if not release.may_release(task.spec, command.user):
        return (
            _refused(task, "approval_denied", user=command.user, reason="the task names others who may release it"),
        )
    return (
        TaskApproved(
            task.spec.id, task.attempt, gate.gate_id, gate.digest, command.user, command.step, command.at_ms,
            command.signature, command.key,
        ),
    )  # fmt: skip


def _refused(task: TaskRecord, code: str, **detail: Any) -> TaskFailed:
    gate = task.gate
    said = {name: value for name, value in detail.items() if value}
    return TaskFailed(task.spec.id, task.attempt, failure(code, gate_id=gate.gate_id if gate else "", **said))
