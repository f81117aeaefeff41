"""Approval commands and what they lead to. That a human's fresh code stands behind a grant was judged by the account's
own log; here only gate, digest and time are judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, assert_never

from contracts.approval import (
    ApprovalAnswered,
    ApprovalAttemptRefused,
    ApprovalDenied,
    ApprovalEvent,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRequested,
    ApprovalStale,
    ApprovalWithdrawn,
    Outcome,
    RequestApproval,
    TakeApproval,
)
from contracts.errors import Rejected
from contracts.identity import GateRef, UserKind
from services.identity.approval.state import CLOSED_CODES, Approval, answer_of, evolve
from services.runtime.decider import Decider

ATTEMPTS_NOTED_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class OpenGate:
    """A request as it came, with the bounds checked at the edge."""

    request: RequestApproval


@dataclass(frozen=True, slots=True)
class GrantGate:
    """Release it: `user` proved to be a human with `step` at `at_ms`, having been shown `digest`."""

    user: str
    kind: UserKind
    step: int
    digest: str
    at_ms: int
    signature: str = ""
    key: str = ""
    batch: tuple[GateRef, ...] = ()


@dataclass(frozen=True, slots=True)
class DenyGate:
    """Say no in the same way."""

    user: str
    step: int
    digest: str
    at_ms: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WithdrawGate:
    """Nobody needs it any more."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class NoteRefusal:
    """Somebody who may not answer tried."""

    user: str
    code: str


@dataclass(frozen=True, slots=True)
class TakeTime:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class MarkAnswered:
    """The answer was stored in the run's mailbox."""

    outcome: Outcome


ApprovalCommand = OpenGate | GrantGate | DenyGate | WithdrawGate | NoteRefusal | TakeTime | MarkAnswered


class SendAnswer(NamedTuple):
    """Effect: put the answer into the run's mailbox. Twice does no harm."""

    answer: TakeApproval

    @property
    def key(self) -> str:
        """What tells the actor host that this one is under way already."""
        return f"{self.answer.approval_id}:{self.answer.outcome}"


def check_answerable(gate: Approval, digest: str, now_ms: int) -> ApprovalRequested:
    """The request of a gate that may be answered now by who was shown `digest`; "" means not said.

    Raises Rejected with the code that says why not.
    """
    asked = gate.requested
    if asked is None:
        raise Rejected("approval_not_found", approval_id=gate.approval_id)
    if gate.status in CLOSED_CODES:
        raise Rejected(CLOSED_CODES[gate.status], approval_id=gate.approval_id)
    if now_ms >= asked.expires_at_ms:
        raise Rejected("approval_expired", approval_id=gate.approval_id)
    if digest and digest != asked.digest:
        raise Rejected("approval_stale", approval_id=gate.approval_id, digest=asked.digest)
    return asked


def decide(command: ApprovalCommand, gate: Approval, now_ms: int) -> Sequence[ApprovalEvent]:
    """Judge a wish against the facts."""
    match command:
        case OpenGate():
            return _open(command.request, gate, now_ms)
        case GrantGate():
            return _grant(command, gate)
        case DenyGate():
            if gate.denied is not None and (gate.denied.user, gate.denied.step) == (command.user, command.step):
                return ()
            check_answerable(gate, command.digest, command.at_ms)
            denied = ApprovalDenied(user=command.user, step=command.step, at_ms=command.at_ms, reason=command.reason)
            return (denied,)
        case WithdrawGate():
            return (ApprovalWithdrawn(at_ms=now_ms, reason=command.reason),) if gate.open else ()
        case NoteRefusal():
            if not gate.open or gate.refused_attempts >= ATTEMPTS_NOTED_MAX:
                return ()
            return (ApprovalAttemptRefused(user=command.user, code=command.code, at_ms=now_ms),)
        case TakeTime():
            due = gate.open and gate.requested is not None and now_ms >= gate.requested.expires_at_ms
            return (ApprovalExpired(at_ms=now_ms),) if due else ()
        case MarkAnswered():
            return (ApprovalAnswered(outcome=command.outcome, at_ms=now_ms),) if gate.owes_an_answer else ()
        case _:
            assert_never(command)


def _open(request: RequestApproval, gate: Approval, now_ms: int) -> Sequence[ApprovalEvent]:
    asked = gate.requested
    if asked is not None:
        if gate.open and asked.digest != request.digest:
            return (ApprovalStale(digest=request.digest, at_ms=now_ms),)
        return ()  # said twice is said once
    expires = now_ms + request.timeout_ms if request.expires_at_ms is None else request.expires_at_ms
    return (
        ApprovalRequested(
            approval_id=gate.approval_id,
            run_id=request.run_id,
            task_id=request.task_id,
            attempt=request.attempt,
            digest=request.digest,
            action=request.action,
            title=request.title,
            requested_by=request.requested_by,
            approvers=request.approvers,
            at_ms=now_ms,
            expires_at_ms=expires,
            read_from=request.read_from,
            read_more=request.read_more,
        ),
    )


def _grant(command: GrantGate, gate: Approval) -> Sequence[ApprovalEvent]:
    granted = gate.granted
    if granted is not None and (granted.user, granted.step) == (command.user, command.step):
        return ()
    if command.kind != "human":
        raise Rejected("agent_cannot_approve", approval_id=gate.approval_id)
    asked = check_answerable(gate, command.digest, command.at_ms)
    return (
        ApprovalGranted(
            user=command.user,
            kind=command.kind,
            step=command.step,
            digest=asked.digest,
            at_ms=command.at_ms,
            signature=command.signature,
            key=command.key,
            batch=list(command.batch),
        ),
    )


def react(gate: Approval, _events: Sequence[ApprovalEvent]) -> Sequence[Any]:
    """What follows from events that were just stored."""
    return recover(gate)


def recover(gate: Approval) -> Sequence[Any]:
    """What is still owed to the run."""
    return (SendAnswer(answer_of(gate)),) if gate.owes_an_answer else ()


APPROVAL: Final[Decider[ApprovalCommand, Approval, ApprovalEvent]] = Decider(
    initial=Approval,
    decide=decide,
    evolve=evolve,
    is_terminal=lambda gate: gate.status == "withdrawn" or gate.answered,
    react=react,
    recover=recover,
)
