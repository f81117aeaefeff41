"""What the exit of a program means for its task: a tester's is the verdict, others' is a result."""

from typing import Any

import pytest

from contracts.run import TaskBlocked, TaskCompleted, TaskFailed, TaskRetryScheduled
from contracts.run_gates import TaskApprovalRequested
from contracts.run_tools import TakeToolResult, ToolAnswered
from contracts.task import TaskSpec, ToolNode
from services.executor.run.effects import RunStage
from services.executor.run.snapshot import dump, restore
from services.executor.run.tool_verdicts import SHOWN_CHARS_MAX
from tests.support.spec import Spec
from tests.unit.executor.builders import (
    COMPLETE,
    STRATEGY,
    agent,
    answer,
    denied,
    done,
    gave,
    noop,
    run,
    spawn,
    start,
    tool,
    wants,
    working,
)

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


# -- agents that test ----------------------------------------------------------------------------------------------


def having_run(*values: Any, role: str = "tester", **options: Any) -> Spec:
    """A tester's agent whose model has run these programs, one after the other."""
    spec = working(agent("test", role=role), noop("deploy", "test", role="admin"), **options)
    step = "r1.test.1.llm-1"
    for call, value in enumerate(values, 1):
        spec.after(wants(step, "shell"), value if isinstance(value, TakeToolResult) else gave("test", call, value))
        step = f"r1.test.1.llm-1.{call + 1}"
    return spec


def last_word(spec: Spec) -> Any:
    """What the last answer of the model leads to."""
    step = next(iter(spec.state.calls))
    return spec.when(answer(step, "the tests fail")).events[-1]


def test_an_agent_whose_tests_are_red_does_not_complete() -> None:
    spec = having_run(RED)
    failed = last_word(spec)
    assert (type(failed), failed.error["code"]) == (TaskFailed, "program_failed")
    assert spec.state.tasks["deploy"].status == "blocked"
    assert not any(isinstance(event, TaskApprovalRequested) for event in spec.history)


@pytest.mark.parametrize(
    "bad",
    [
        TakeToolResult("test", 1, 1, error={"class": "timeout", "code": "timeout", "message": "m"}),
        TakeToolResult("test", 1, 1, error={"class": "execution", "code": "docker_unavailable", "message": "m"}),
    ],
)
def test_tests_that_did_not_come_to_an_end_are_not_green(bad: TakeToolResult) -> None:
    assert isinstance(last_word(having_run(bad)), TaskFailed)


@pytest.mark.parametrize("story", [(), ({"exit": 0},), (RED, {"exit": 0}), (denied("test", 1),), ("text",)])
def test_an_agent_completes_when_what_it_ran_last_was_green(story: tuple[Any, ...]) -> None:
    assert isinstance(last_word(having_run(*story)), TaskCompleted)


def test_a_red_one_among_several_at_once_is_red() -> None:
    spec = working(agent("test", role="tester")).after(wants("r1.test.1.llm-1", "shell", "docker"))
    spec.after(gave("test", 1, RED), gave("test", 2, {"exit": 0}))
    assert isinstance(last_word(spec), TaskFailed)


def test_what_other_agents_ran_last_is_their_affair() -> None:
    assert isinstance(last_word(having_run(RED, role="coder")), TaskCompleted)


def judged(spec: Spec) -> dict[str, Any]:
    """What the completion gate is told of tests."""
    (stage,) = spec.effects(RunStage)
    assert stage.stage == "completion"
    tests: dict[str, Any] = stage.context["tests"]
    return tests


def gated(role: str, *, tests: Any = None) -> Spec:
    """A task of a strategy whose one agent ran red tests and said its last word."""
    context = {} if tests is None else {"tests": tests}
    spec = working(agent("test", role=role, context=context), strategy=STRATEGY)
    spec.after(done("test", step="spawn", value=spawn(role)), done("test", step="orchestrate", value={}))
    spec.after(wants("r1.test.1.llm-1", "shell"), gave("test", 1, RED), answer("r1.test.1.llm-1.2"))
    return spec


def test_the_completion_gate_hears_of_red_tests() -> None:
    assert judged(gated("tester"))["unit_tests"] == {"failed": 1}
    assert judged(gated("coder")) == {}


@pytest.mark.parametrize(
    ("given", "heard"),
    [
        ({"unit_tests": {"passed": 3, "failed": 2}, "e2e": 1}, {"unit_tests": {"passed": 3, "failed": 2}, "e2e": 1}),
        ({"unit_tests": {"failed": 0}}, {"unit_tests": {"failed": 1}}),
        ("nonsense", {"unit_tests": {"failed": 1}}),
        ({"unit_tests": "nonsense"}, {"unit_tests": {"failed": 1}}),
        ({"unit_tests": {"failed": "some"}}, {"unit_tests": {"failed": 1}}),
    ],
)
def test_what_the_task_says_of_tests_stays_where_it_says_more(given: Any, heard: Any) -> None:
    assert judged(gated("tester", tests=given)) == heard


def test_the_gate_decides_and_a_rework_that_runs_nothing_is_as_red_as_before() -> None:
    spec = gated("tester")
    spec.after(done("test", step="complete", value={"status": "needs_rework", "required_fixes": ["1 test failures"]}))
    spec.after(answer("r1.test.1.llm-2"))
    assert judged(spec)["unit_tests"] == {"failed": 1}
    assert isinstance(spec.when(done("test", step="complete-1", value=COMPLETE)).events[-1], TaskCompleted)


def test_what_was_red_is_red_in_a_restored_run() -> None:
    spec = having_run(RED)
    assert dump(restore(dump(spec.state))) == dump(spec.state)
    assert restore(dump(spec.state)).tasks["test"].work.programs == spec.state.tasks["test"].work.programs != {}
