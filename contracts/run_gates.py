"""What a run says of its gates: a human must release an action, once, before it happens.

A gate belongs to one attempt of one task; its id follows from run, task and attempt. The request itself goes to
identity (`contracts.approval.RequestApproval`), whose answer comes back as `TakeApproval`.
"""

import msgspec


class TaskApprovalRequested(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.approval_requested.v1"
):
    """A task waits for a human until `expires_at_ms`; nothing of it has begun. `digest` is that of the exact action."""

    task_id: str
    attempt: int
    gate_id: str
    digest: str
    expires_at_ms: int


class TaskApproved(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.approved.v1"):
    """A human released just this attempt; `step` is that of the code, `at_ms` the time by identity's clock.

    `signature` and `key` are identity's (`contracts.approval.signed_text`): whoever acts on a release verifies it.
    """

    task_id: str
    attempt: int
    gate_id: str
    digest: str
    user: str
    step: int
    at_ms: int
    signature: str = ""
    key: str = ""
