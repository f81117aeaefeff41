"""What the exit of a tool node's program means for its task: a tester's is the verdict, others' is a result."""

from typing import Any

import pytest

from contracts.run import TaskBlocked, TaskCompleted, TaskFailed, TaskRetryScheduled
from contracts.run_gates import TaskApprovalRequested
from contracts.run_tools import ToolAnswered
from contracts.task import TaskSpec, ToolNode
from services.executor.run.tool_verdicts import SHOWN_CHARS_MAX
from tests.unit.executor.builders import gave, noop, run, start, tool

RED = {"stdout": "1 failed", "stderr": "", "exit": 1}


def node(task_id: str, role: str, *, fails_on_exit: bool | None) -> TaskSpec:
    return TaskSpec(task_id, role=role, node=ToolNode("shell", {"cmd": ["pytest"]}, fails_on_exit=fails_on_exit))


def test_red_tests_block_review_and_deployment_and_nobody_is_asked() -> None:
    """Story 3 (a), with a tester whose task is the one call that runs the tests."""
    pipeline = [
        tool("test", role="tester"),
        noop("review", "test", role="critic"),
        noop("deploy", "review", role="admin"),
    ]
    spec = run().after(start(*pipeline))
    told = spec.when(gave("test", 1, RED))
    assert [type(event) for event in told.events[:2]] == [ToolAnswered, TaskFailed]
    error = told.events[1].error
    assert (error["class"], error["code"], error["exit"], error["stdout"]) == (
        "execution",
        "program_failed",
        1,
        "1 failed",
    )
    assert [event.task_id for event in spec.history if isinstance(event, TaskBlocked)] == ["review", "deploy"]
    assert not any(isinstance(event, TaskApprovalRequested) for event in spec.history)


def test_green_tests_are_a_result() -> None:
    spec = run().after(start(tool("test", role="tester")))
    told = spec.when(gave("test", 1, {"stdout": "9 passed", "exit": 0}))
    assert told.events[1].result == {"stdout": "9 passed", "exit": 0}


@pytest.mark.parametrize("role", ["coder", "critic", "researcher", "architect"])
def test_the_exit_of_others_is_a_result(role: str) -> None:
    spec = run().after(start(tool("a", role=role)))
    assert isinstance(spec.when(gave("a", 1, RED)).events[1], TaskCompleted)


@pytest.mark.parametrize(("role", "says", "ends"), [("coder", True, TaskFailed), ("tester", False, TaskCompleted)])
def test_a_node_says_itself_what_its_exit_means(role: str, says: bool, ends: type[Any]) -> None:
    spec = run().after(start(node("a", role, fails_on_exit=says)))
    assert isinstance(spec.when(gave("a", 1, RED)).events[1], ends)


def test_an_alias_of_a_role_has_its_meaning() -> None:
    spec = run().after(start(tool("a", role="quality_engineer")))
    assert isinstance(spec.when(gave("a", 1, RED)).events[1], TaskFailed)


def test_red_tests_are_red_the_first_time() -> None:
    spec = run().after(start(tool("a", role="tester", max_attempts=5)))
    assert not any(isinstance(event, TaskRetryScheduled) for event in spec.when(gave("a", 1, RED)).events)


@pytest.mark.parametrize("value", ["text", None, {"status": 200}, {"exit": None}, {"exit": True}, {"exit": "1"}])
def test_what_has_no_exit_has_no_bad_one(value: Any) -> None:
    spec = run().after(start(node("a", "tester", fails_on_exit=True)))
    assert isinstance(spec.when(gave("a", 1, value)).events[1], TaskCompleted)


def test_the_error_shows_the_end_of_what_was_said() -> None:
    spec = run().after(start(tool("a", role="tester")))
    said = {"stdout": "x" * 50_000 + "the last words", "stderr": "", "exit": 2}
    error = spec.when(gave("a", 1, said)).events[1].error
    assert error["stdout"].endswith("the last words")
    assert len(error["stdout"]) <= SHOWN_CHARS_MAX
    assert "stderr" not in error
