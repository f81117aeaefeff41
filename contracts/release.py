"""Tasks that a human must release: what may be said of one, and what exactly is shown and released.

Planner, executor and policy-gateway judge it alike.
"""

from typing import Any, Final

import msgspec

from contracts.approval import ACTION_BYTES_MAX, APPROVERS_MAX
from contracts.errors import Rejected
from contracts.identity import NAME_CHARS_MAX
from contracts.task import ADMIN, ApprovalNode, GroupNode, TaskSpec
from contracts.tools import role_of

SHOWN_BYTES_MAX: Final = ACTION_BYTES_MAX // 4 * 3
"""A task that a human must release: the whole action, with defaults spelt out, must fit into the request."""
_ENCODE: Final = msgspec.json.Encoder().encode


def is_gated(spec: TaskSpec) -> bool:
    """Whether a task may need a human before each of its attempts; a group does nothing that one could release."""
    node = type(spec.node)
    return node is ApprovalNode or (role_of(spec.role) == ADMIN and node is not GroupNode)


def action_of(spec: TaskSpec, workspace: str | None) -> dict[str, Any]:
    """Everything that a task of a run with this workspace will do, as people are shown it; its digest binds a gate."""
    action = {
        "task": spec.id,
        "title": spec.title,
        "description": spec.description,
        "role": spec.role,
        "node": msgspec.to_builtins(spec.node),
        "context": msgspec.to_builtins(spec.context),
        "acceptance_criteria": spec.acceptance_criteria,
        "workspace": workspace,
    }
    return {**action, "approvers": spec.approvers} if spec.approvers else action


def may_release(spec: TaskSpec, user: str) -> bool:
    """Whether the task leaves its release to this human."""
    approvers = {name.strip().lower() for name in spec.approvers}
    return not approvers or user.lower() in approvers


def check_release(spec: TaskSpec) -> None:
    """Refuse what no human could release: too long to be shown, nobody who may, or no action of its own."""
    if spec.approvers:
        _check_approvers(spec)
    if type(spec.node) is GroupNode and role_of(spec.role) == ADMIN:
        text = f"task {spec.id}: a group does nothing that a human could release; give the role to its children"
        raise Rejected("bad_request", text, field="role", task_id=spec.id)
    if is_gated(spec) and len(_ENCODE(spec)) > SHOWN_BYTES_MAX:
        raise Rejected("too_large", "too long to be shown to a human", task_id=spec.id, max=SHOWN_BYTES_MAX)


def _check_approvers(spec: TaskSpec) -> None:
    """Refuse a list of which nobody could be let in; whether an account of a name exists is for identity to know."""
    named = len(spec.approvers)
    if named > APPROVERS_MAX:
        text = "approvers is out of bounds"
        raise Rejected("bad_request", text, field="approvers", max=APPROVERS_MAX, requested=named, task_id=spec.id)
    for name in spec.approvers:
        if not 1 <= len(name.strip()) <= NAME_CHARS_MAX:
            raise Rejected("bad_request", "an approver is the name of a user", field="approvers", task_id=spec.id)
