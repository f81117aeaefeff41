"""A gate: open until a human, time, or a change of the action closes it; the run is told once."""

import dataclasses
from typing import Any

import msgspec

from contracts.approval import (
    ApprovalAnswered,
    ApprovalDenied,
    ApprovalEvent,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalStale,
    ApprovalWithdrawn,
    RequestApproval,
    action_digest,
)
from contracts.codec import CommitCodec
from services.identity.approval.decider import (
    APPROVAL,
    DenyGate,
    GrantGate,
    MarkAnswered,
    NoteRefusal,
    OpenGate,
    SendAnswer,
    TakeTime,
    WithdrawGate,
)
from services.identity.approval.state import answer_of
from tests.support.spec import NOW_MS, Spec

CODEC: CommitCodec[ApprovalEvent] = CommitCodec(ApprovalEvent)
ACTION = {"tool": "shell", "cmd": ["deploy.sh"]}
DIGEST = action_digest(ACTION)
REQUEST = RequestApproval(run_id="r1", task_id="deploy", digest=DIGEST, action=ACTION, timeout_ms=900_000)
GRANT = GrantGate(user="aka", kind="human", step=7, digest=DIGEST, at_ms=NOW_MS)


def gate() -> Spec:
    spec = Spec(APPROVAL, "apr-7", codec=CODEC, same=lambda one: msgspec.json.encode(msgspec.to_builtins(one)))
    return spec.after(OpenGate(REQUEST))


def altered(command: GrantGate, **more: Any) -> GrantGate:
    return dataclasses.replace(command, **more)


def changed(**more: Any) -> OpenGate:
    return OpenGate(msgspec.structs.replace(REQUEST, **more))


def test_a_request_opens_a_gate_until_its_expiry():
    spec = gate()
    assert spec.state.open
    assert spec.state.requested.expires_at_ms == NOW_MS + 900_000


def test_a_request_that_lay_in_the_mailbox_beyond_its_end_is_told_that_it_expired():
    spec = Spec(APPROVAL, "apr-8", codec=CODEC, same=msgspec.to_builtins).after(changed(expires_at_ms=NOW_MS - 1))
    spec.when(TakeTime()).then(ApprovalExpired(NOW_MS))


def test_the_same_request_again_changes_nothing():
    gate().when(OpenGate(REQUEST)).then_nothing()


def test_another_action_under_the_same_gate_makes_it_stale():
    spec = gate()
    spec.when(changed(digest="other")).then(ApprovalStale("other", NOW_MS))
    spec.when(GRANT).then_rejected("approval_stale")


def test_a_grant_for_another_digest_is_stale():
    gate().when(altered(GRANT, digest="other")).then_rejected("approval_stale")


def test_a_human_grants_once_and_another_code_does_not_grant_again():
    spec = gate()
    spec.when(GRANT).then(ApprovalGranted("aka", "human", 7, DIGEST, NOW_MS))
    spec.when(GRANT).then_nothing()
    spec.when(altered(GRANT, step=8)).then_rejected("approval_granted")


def test_an_agent_never_grants():
    gate().when(altered(GRANT, kind="agent")).then_rejected("agent_cannot_approve")


def test_time_closes_a_gate_and_never_says_yes():
    spec = gate().later(899_999)
    spec.when(TakeTime()).then_nothing()
    spec.later(1).when(TakeTime()).then(ApprovalExpired(NOW_MS + 900_000))
    spec.when(GRANT).then_rejected("approval_expired")


def test_a_proof_given_in_time_counts_also_when_it_is_carried_out_later():
    gate().later(901_000).when(GRANT).then(ApprovalGranted("aka", "human", 7, DIGEST, NOW_MS))


def test_a_proof_given_too_late_does_not_count():
    gate().when(altered(GRANT, at_ms=NOW_MS + 900_000)).then_rejected("approval_expired")


def test_a_denied_gate_stays_denied():
    spec = gate()
    spec.when(DenyGate("aka", 7, DIGEST, NOW_MS, "no")).then(ApprovalDenied("aka", 7, NOW_MS, "no"))
    spec.when(GRANT).then_rejected("approval_denied")


def test_what_is_withdrawn_owes_nobody_an_answer():
    spec = gate()
    spec.when(WithdrawGate("over")).then(ApprovalWithdrawn(NOW_MS, "over"))
    assert spec.effects() == []
    spec.when(GRANT).then_rejected("approval_withdrawn")


def test_the_answer_is_owed_until_it_is_stored():
    spec = gate().after(GRANT)
    (owed,) = spec.effects(SendAnswer)
    assert owed.answer == answer_of(spec.state)
    assert (owed.answer.outcome, owed.answer.user, owed.answer.step) == ("granted", "aka", 7)
    spec.when(MarkAnswered("granted")).then(ApprovalAnswered("granted", NOW_MS))
    spec.when(MarkAnswered("granted")).then_nothing()
    assert spec.effects() == []


def test_a_gate_nobody_asked_for_is_not_found():
    Spec(APPROVAL, "apr-8", codec=CODEC, same=msgspec.to_builtins).when(GRANT).then_rejected("approval_not_found")


def test_refusals_are_noted_up_to_a_bound():
    spec = gate()
    for _ in range(30):
        spec.after(NoteRefusal("planner-1", "agent_cannot_approve"))
    assert spec.state.refused_attempts == 20
