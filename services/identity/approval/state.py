"""A gate as its events tell it."""

from dataclasses import dataclass
from typing import Final, cast

import msgspec

from contracts.approval import (
    APPROVAL_TIMEOUT_MAX_MS,
    ApprovalAnswered,
    ApprovalAttemptRefused,
    ApprovalDenied,
    ApprovalEvent,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRequested,
    ApprovalStale,
    ApprovalStatus,
    ApprovalWithdrawn,
    Outcome,
    TakeApproval,
)

CLOSED_CODES: Final = {
    "granted": "approval_granted",
    "denied": "approval_denied",
    "expired": "approval_expired",
    "stale": "approval_stale",
    "withdrawn": "approval_withdrawn",
}
"""Under which code a gate that is not open refuses to be answered."""


@dataclass(slots=True)
class Approval:
    """One gate; `requested` is None until it was asked for."""

    approval_id: str
    requested: ApprovalRequested | None = None
    status: ApprovalStatus | None = None
    granted: ApprovalGranted | None = None
    denied: ApprovalDenied | None = None
    closed_at_ms: int = 0
    reason: str = ""
    answered: bool = False
    refused_attempts: int = 0

    @property
    def open(self) -> bool:
        """Whether it waits for a human."""
        return self.status == "open"

    @property
    def owes_an_answer(self) -> bool:
        """Whether the run must still be told what became of it."""
        return self.status not in (None, "open", "withdrawn") and not self.answered


def evolve(gate: Approval, event: ApprovalEvent) -> Approval:
    """Take a fact in."""
    match event:
        case ApprovalRequested():
            gate.requested, gate.status = _bounded(event), "open"
        case ApprovalGranted():
            gate.granted, gate.status, gate.closed_at_ms = event, "granted", event.at_ms
        case ApprovalDenied():
            gate.denied, gate.status, gate.closed_at_ms, gate.reason = event, "denied", event.at_ms, event.reason
        case ApprovalExpired():
            gate.status, gate.closed_at_ms = "expired", event.at_ms
        case ApprovalStale():
            gate.status, gate.closed_at_ms = "stale", event.at_ms
        case ApprovalWithdrawn():
            gate.status, gate.closed_at_ms, gate.reason = "withdrawn", event.at_ms, event.reason
        case ApprovalAttemptRefused():
            gate.refused_attempts += 1
        case ApprovalAnswered():
            gate.answered = True
    return gate


def _bounded(asked: ApprovalRequested) -> ApprovalRequested:
    """The request with an end that can come: old logs hold gates whose end nobody had checked."""
    end_ms = min(max(asked.expires_at_ms, 0), asked.at_ms + APPROVAL_TIMEOUT_MAX_MS)
    return asked if end_ms == asked.expires_at_ms else msgspec.structs.replace(asked, expires_at_ms=end_ms)


def answer_of(gate: Approval) -> TakeApproval:
    """What the run is told of a gate that is not open any more."""
    asked, status = gate.requested, gate.status
    if asked is None or status is None or status in {"open", "withdrawn"}:
        raise ValueError(f"{gate.approval_id} has no answer")
    granted, denied = gate.granted, gate.denied
    return TakeApproval(
        approval_id=gate.approval_id,
        run_id=asked.run_id,
        task_id=asked.task_id,
        attempt=asked.attempt,
        outcome=cast(Outcome, status),
        digest=asked.digest,
        at_ms=gate.closed_at_ms,
        user=granted.user if granted else denied.user if denied else None,
        kind="human" if granted or denied else None,
        step=granted.step if granted else denied.step if denied else None,
        reason=gate.reason,
        code="" if granted else CLOSED_CODES[status],
        signature=granted.signature if granted else "",
        key=granted.key if granted else "",
    )
