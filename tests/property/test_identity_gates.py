"""Any story of one gate: it is answered at most once, never by time alone with a yes, and the log folds the same."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.approval import (
    ApprovalDenied,
    ApprovalEvent,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalStale,
    ApprovalWithdrawn,
    RequestApproval,
)
from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.errors import Rejected
from services.identity.approval.decider import (
    APPROVAL,
    ApprovalCommand,
    DenyGate,
    GrantGate,
    MarkAnswered,
    NoteRefusal,
    OpenGate,
    TakeTime,
    WithdrawGate,
)
from services.runtime.decider import fold

CODEC: CommitCodec[ApprovalEvent] = CommitCodec(ApprovalEvent)
START_MS = 1_790_000_000_000
ENDS = (ApprovalGranted, ApprovalDenied, ApprovalExpired, ApprovalStale, ApprovalWithdrawn)
DIGESTS = st.sampled_from(["one", "one", "one", "two"])
WORDS = st.sampled_from(["open", "grant", "grant", "agent", "deny", "withdraw", "time", "note", "mark"])


def command(word: str, digest: str, now_ms: int, step: int) -> ApprovalCommand:
    match word:
        case "open":
            return OpenGate(RequestApproval("r1", "t1", digest, {"a": digest}, timeout_ms=60_000))
        case "grant" | "agent":
            return GrantGate("aka", "agent" if word == "agent" else "human", step, digest, now_ms)
        case "deny":
            return DenyGate("aka", step, digest, now_ms)
        case "withdraw":
            return WithdrawGate()
        case "note":
            return NoteRefusal("planner-1", "agent_cannot_approve")
        case "mark":
            return MarkAnswered("granted")
        case _:
            return TakeTime()


@pytest.mark.law("I6")
@given(st.lists(st.tuples(WORDS, DIGESTS, st.sampled_from([0, 0, 1_000, 59_000, 60_000])), max_size=30))
def test_a_gate_ends_once_and_only_a_human_in_time_with_the_shown_digest_opens_it(story):
    state, now_ms, history = APPROVAL.initial("apr-1"), START_MS, list[ApprovalEvent]()
    for step, (word, digest, wait) in enumerate(story):
        now_ms += wait
        wish = command(word, digest, now_ms, step)
        try:
            events = list(APPROVAL.decide(wish, state, now_ms))
        except Rejected:
            continue
        for event in events:
            if isinstance(event, ApprovalGranted):
                asked = state.requested
                assert word == "grant"
                assert event.digest == digest == asked.digest
                assert now_ms < asked.expires_at_ms
        state = fold(APPROVAL, state, events)
        history += events
    assert len([event for event in history if isinstance(event, ENDS)]) <= 1
    told = CODEC.decode(CODEC.encode(Commit(at="", by="", cause="", corr="", events=history))).events
    again = fold(APPROVAL, APPROVAL.initial("apr-1"), told)
    assert msgspec.to_builtins(again) == msgspec.to_builtins(state)
