"""Tasks for which only the policy wants a human, and those that say which human."""

from typing import Any

import pytest

from contracts.approval import ACTION_BYTES_MAX
from contracts.errors import Rejected
from contracts.run import LlmAnswered, LlmRequested, TaskCompleted, TaskFailed, TaskRetryScheduled, TaskStarted
from contracts.run import RunEnded as Ended
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.run_tools import TakeToolResult, ToolAnswered, ToolRequested
from services.executor import graph
from services.executor.run.effects import CallTool, WithdrawTools
from services.executor.run.gates import Gating
from tests.support.spec import NOW_MS
from tests.unit.executor.builders import agent, noop, tool, wants
from tests.unit.executor.test_run_gates import Told, admin, kinds, said

UNAPPROVED = {"class": "policy_violation", "code": "approval_required", "rule": "role.approval", "message": "m"}


def refused(attempt: int, call: int = 1) -> TakeToolResult:
    return TakeToolResult("a", attempt, call, error=UNAPPROVED)


@pytest.mark.parametrize("gating", [Gating(), Gating(auto_admin=True)])
def test_what_the_policy_wants_a_human_for_opens_a_gate_and_goes_on_after_the_release(gating: Gating) -> None:
    told = Told(tool("a", max_attempts=1), gating=gating)
    events = told.tell(refused(1))
    assert kinds(events) == [ToolAnswered, TaskRetryScheduled, TaskApprovalRequested]
    asked = told.asked
    assert (told.status("a"), asked.attempt, asked.expires_at_ms) == ("waiting_approval", 2, NOW_MS + 15 * 60_000)
    assert told.run.running == 0
    events = told.tell(said(asked))
    assert kinds(events) == [TaskApproved, TaskStarted, ToolRequested]
    assert [(effect.attempt, effect.call) for effect in told.effects if isinstance(effect, CallTool)] == [(2, 1)]
    done = told.tell(TakeToolResult("a", 2, 1, {"exit": 0}))
    assert kinds(done) == [ToolAnswered, TaskCompleted, Ended]


def test_a_released_attempt_that_is_refused_all_the_same_fails() -> None:
    told = Told(tool("a"))
    told.tell(refused(1))
    told.tell(said(told.asked))
    assert kinds(told.tell(refused(2)))[:2] == [ToolAnswered, TaskFailed]
    assert told.run.tasks["a"].error["code"] == "approval_required"


def test_an_admin_task_that_was_released_asks_no_second_time() -> None:
    told = Told(admin("a"))
    told.tell(said(told.asked))
    assert kinds(told.tell(refused(1)))[:2] == [ToolAnswered, TaskFailed]


def test_an_admin_task_that_began_by_itself_waits_when_the_gateway_wants_a_human() -> None:
    told = Told(admin("a"), gating=Gating(auto_admin=True))
    assert told.status("a") == "in_progress"
    assert kinds(told.tell(refused(1)))[-1] is TaskApprovalRequested


def test_an_agent_begins_anew_once_it_is_released() -> None:
    told = Told(agent("a", max_attempts=1), workspace="shop")
    assert kinds(told.tell(wants("r1.a.1.llm-1", "shell", "git"))) == [LlmAnswered, ToolRequested, ToolRequested]
    events = told.tell(refused(1))
    assert kinds(events) == [ToolAnswered, TaskRetryScheduled, TaskApprovalRequested]
    assert WithdrawTools("a", 1) in told.effects
    events = told.tell(said(told.asked))
    assert kinds(events)[:2] == [TaskApproved, TaskStarted]
    assert [event.request.corr_id for event in events if isinstance(event, LlmRequested)] == ["r1.a.2.llm-1"]


def test_a_denied_gate_fails_the_task() -> None:
    told = Told(tool("a"))
    told.tell(refused(1))
    told.tell(said(told.asked, "denied", reason="no"))
    assert told.run.tasks["a"].error["code"] == "approval_denied"


def test_what_is_too_long_to_be_shown_fails() -> None:
    told = Told(tool("a", description="d", context={"much": "x" * ACTION_BYTES_MAX}))
    assert kinds(told.tell(refused(1)))[:3] == [ToolAnswered, TaskRetryScheduled, TaskFailed]
    assert told.run.tasks["a"].error["code"] == "approval_required"


# -- approvers -------------------------------------------------------------------------------------------------------


def test_a_task_names_who_may_release_it() -> None:
    told = Told(admin(approvers=["Aka", "Eve"]))
    assert told.asked.approvers == ["Aka", "Eve"]
    assert told.asked.action["approvers"] == ["Aka", "Eve"]
    assert kinds(told.tell(said(told.asked)))[0] is TaskApproved


def test_the_release_of_somebody_else_is_none() -> None:
    told = Told(admin(approvers=["eve"]))
    told.tell(said(told.asked))
    error = told.run.tasks["deploy"].error
    assert (error["code"], error["user"]) == ("approval_denied", "aka")


@pytest.mark.parametrize("approvers", [[""], [" "], ["x" * 65], ["aka"] * 101])
def test_a_list_that_lets_nobody_in_is_refused(approvers: list[Any]) -> None:
    with pytest.raises(Rejected, match="approver"):
        graph.check_tasks([noop("a", approvers=approvers)])
