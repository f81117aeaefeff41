"""Tasks that a human must release: given a history, when something is said, then …"""

from typing import Any

import pytest

from contracts.approval import Outcome, TakeApproval, action_digest
from contracts.run import (
    CancelRun,
    ResumeRun,
    RunEnded,
    TakeTime,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskRetryScheduled,
    TaskStarted,
)
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.run_tools import TakeToolResult, ToolRequested
from contracts.task import ApprovalNode, TaskSpec
from services.executor.run.advance import advance
from services.executor.run.decider import RUN
from services.executor.run.effects import AskApproval, CallTool, WithdrawApproval
from services.executor.run.gates import Gating
from services.executor.run.snapshot import dump, restore
from services.executor.run.state import Run
from services.executor.views import view_of
from tests.support.spec import NOW_MS
from tests.unit.executor.builders import noop, start, tool

MINUTES = 60_000


class Told:
    """One run that is told things, as the host does it."""

    def __init__(self, *tasks: TaskSpec, gating: Gating | None = None, **options: Any) -> None:
        self.gating = gating or Gating()
        self.run: Run = RUN.initial("r1")
        self.now_ms = NOW_MS
        self.effects: list[Any] = []
        self.events = self.tell(start(*tasks, **options))

    def tell(self, command: Any) -> list[Any]:
        events: list[Any] = []
        follows = list(RUN.decide(command, self.run, self.now_ms))
        while True:
            events += follows
            for event in follows:
                self.run = RUN.evolve(self.run, event)
            follows = list(advance(self.run, self.now_ms, self.gating))
            if not follows:
                break
        self.effects = list(RUN.react(self.run, events))
        # Whatever happens, a snapshot and the state are the same.
        assert dump(restore(dump(self.run))) == dump(self.run)
        return events

    @property
    def asked(self) -> AskApproval:
        return next(effect for effect in self.effects if isinstance(effect, AskApproval))

    def status(self, task_id: str) -> str:
        return self.run.tasks[task_id].status


def said(asked: AskApproval, outcome: Outcome = "granted", **other: Any) -> TakeApproval:
    """What identity answers."""
    fields: dict[str, Any] = {"user": "aka", "kind": "human", "step": 7, "digest": asked.digest, **other}
    return TakeApproval(asked.gate_id, "r1", asked.task_id, asked.attempt, outcome, at_ms=1_790_000_300_000, **fields)


def admin(task_id: str = "deploy", *needs: str, **fields: Any) -> TaskSpec:
    return tool(task_id, *needs, role="admin", **fields)


def kinds(events: list[Any]) -> list[type]:
    return [type(event) for event in events]


def test_an_admin_task_waits_and_shows_the_exact_action() -> None:
    told = Told(admin(context={"environment": "production"}), workspace="shop")
    asked = told.asked
    assert kinds(told.effects) == [AskApproval]
    assert told.status("deploy") == "waiting_approval"
    assert asked.action["node"] == {"type": "tool", "tool": "shell", "args": {"cmd": ["mix", "test"]}}
    assert (asked.action["role"], asked.action["workspace"]) == ("admin", "shop")
    assert asked.action["context"] == {"environment": "production"}
    assert asked.digest == action_digest(asked.action)
    assert asked.expires_at_ms == NOW_MS + 15 * MINUTES
    view = view_of(told.run, 1)
    assert [(wait.kind, wait.deadline_at_ms) for wait in view.waits] == [("approval", asked.expires_at_ms)]
    assert view.tasks[0].approval_id == asked.gate_id
    assert RUN.deadline_at_ms(told.run) == asked.expires_at_ms


@pytest.mark.law("I6")
def test_a_release_starts_just_this_attempt_once() -> None:
    told = Told(admin())
    asked = told.asked
    events = told.tell(said(asked))
    assert kinds(events) == [TaskApproved, TaskStarted, ToolRequested]
    assert (events[0].user, events[0].step, events[0].digest) == ("aka", 7, asked.digest)
    assert kinds(told.effects) == [CallTool]
    assert told.tell(said(asked)) == []
    done = told.tell(TakeToolResult("deploy", 1, 1, {"exit": 0}))
    assert kinds(done)[1:] == [TaskCompleted, RunEnded]


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"outcome": "denied", "reason": "not on a Friday"}, "approval_denied"),
        ({"outcome": "expired"}, "approval_expired"),
        ({"outcome": "stale"}, "approval_stale"),
        ({"digest": "0" * 64}, "approval_stale"),
        ({"kind": "agent"}, "approval_denied"),
        ({"kind": None}, "approval_denied"),
        ({"user": None}, "approval_denied"),
    ],
)
def test_whatever_is_no_release_fails_the_task_and_nothing_begins(other: dict[str, Any], code: str) -> None:
    told = Told(admin(), noop("after", "deploy"))
    events = told.tell(said(told.asked, **other))
    assert isinstance(events[0], TaskFailed)
    assert events[0].error["code"] == code
    assert told.status("after") == "blocked"
    assert told.run.status == "failed"
    assert not any(isinstance(event, TaskStarted) for event in events)


@pytest.mark.parametrize("wrong", ["approval_id", "run_id", "task_id", "attempt"])
def test_an_answer_to_another_gate_changes_nothing(wrong: str) -> None:
    told = Told(admin())
    answer = said(told.asked)
    other = {name: getattr(answer, name) for name in answer.__struct_fields__}
    other[wrong] = 2 if wrong == "attempt" else "another"
    assert told.tell(TakeApproval(**other)) == []
    assert told.status("deploy") == "waiting_approval"


def test_nobody_answers_in_time() -> None:
    told = Told(admin())
    told.now_ms = told.asked.expires_at_ms
    assert told.tell(TakeTime())[0].error["code"] == "approval_expired"


def test_a_release_that_comes_too_late_is_none() -> None:
    told = Told(admin())
    answer = said(told.asked)
    told.now_ms = told.asked.expires_at_ms
    assert told.tell(answer)[0].error["code"] == "approval_expired"


def test_a_gate_never_outlives_its_run() -> None:
    assert Told(admin(), timeout_ms=MINUTES).asked.expires_at_ms == NOW_MS + MINUTES


def test_who_waits_takes_no_room_and_who_is_released_does() -> None:
    told = Told(admin("a"), admin("b"), tool("work", timeout_ms=60 * MINUTES), parallel=1)
    first, second = (effect for effect in told.effects if isinstance(effect, AskApproval))
    assert told.status("work") == "in_progress"
    assert kinds(told.tell(said(first))) == [TaskApproved]
    told.now_ms = first.expires_at_ms - 1
    assert kinds(told.tell(said(second))) == [TaskApproved]
    # The release ran out before there was room.
    told.now_ms = first.expires_at_ms
    assert [event.error["code"] for event in told.tell(TakeTime())] == ["approval_expired"] * 2


def test_a_retry_needs_a_release_of_its_own() -> None:
    told = Told(admin())
    first = told.asked
    told.tell(said(first))
    events = told.tell(TakeToolResult("deploy", 1, 1, error={"class": "x", "code": "service_unavailable"}))
    assert isinstance(events[-1], TaskRetryScheduled)
    told.now_ms = events[-1].due_at_ms
    again = told.tell(TakeTime())
    assert kinds(again) == [TaskApprovalRequested]
    assert (told.asked.attempt, told.asked.digest) == (2, first.digest)
    assert told.asked.gate_id != first.gate_id
    assert told.tell(said(first)) == []


def test_after_a_denial_a_resume_asks_anew() -> None:
    told = Told(admin())
    first = told.asked
    told.tell(said(first, "denied"))
    told.tell(ResumeRun())
    assert told.asked.gate_id != first.gate_id
    assert kinds(told.tell(said(told.asked)))[:2] == [TaskApproved, TaskStarted]


@pytest.mark.parametrize("wish", [CancelRun("enough"), CancelRun("enough", task_id="deploy")])
def test_a_cancelled_task_withdraws_its_gate(wish: CancelRun) -> None:
    told = Told(admin(), noop("other"))
    gate = told.asked.gate_id
    assert TaskCancelled("deploy", "enough") in told.tell(wish)
    assert WithdrawApproval(gate, "enough") in told.effects
    assert not told.run.tasks["deploy"].gate


def test_waking_asks_again_with_the_same_words() -> None:
    told = Told(admin())
    assert list(RUN.recover(restore(dump(told.run)))) == [told.asked]


def test_an_approval_node_completes_with_who_released_it() -> None:
    node = ApprovalNode(title="Ship it?", action={"version": "1.2"})
    told = Told(TaskSpec(id="ok", node=node, timeout_ms=5 * MINUTES), noop("after", "ok"), parallel=1)
    asked = told.asked
    assert (asked.title, asked.action["node"]["action"]) == ("Ship it?", {"version": "1.2"})
    assert asked.expires_at_ms == NOW_MS + 5 * MINUTES
    events = told.tell(said(asked))
    assert kinds(events)[:3] == [TaskApproved, TaskStarted, TaskCompleted]
    assert events[2].result == {"approved_by": "aka", "at": "2026-09-21T14:18:20.000Z", "step": 7}
    assert told.status("after") == "in_progress"


def test_only_loud_configuration_lets_admin_tasks_start_by_themselves() -> None:
    told = Told(admin(), TaskSpec(id="ok", node=ApprovalNode()), gating=Gating(auto_admin=True))
    assert told.status("deploy") == "in_progress"
    assert told.status("ok") == "waiting_approval"
