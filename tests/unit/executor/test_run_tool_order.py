"""What a model may have done, and in which order: its own task's tools, as it lists them, and an answer at the end."""

import json

import pytest

from contracts.limits import TOOL_ROUNDS_PER_ATTEMPT_MAX
from contracts.run import LlmAnswered, LlmRequested, TakeTime, TaskCompleted, TaskFailed, TaskRetryScheduled
from contracts.run_tools import TakeToolResult, ToolAnswered, ToolRequested
from contracts.task import AgentNode, TaskSpec, ToolNode
from contracts.tools import only_reads
from services.executor.run.conversation import ANSWER_NOW
from services.executor.run.decider import RUN
from services.executor.run.effects import CallTool, WithdrawTools
from services.executor.run.tool_steps import BARRED_WAIT_MS
from tests.support.spec import NOW_MS, Spec
from tests.unit.executor.builders import (
    agent,
    answer,
    asked,
    called,
    denied,
    gave,
    messages,
    run,
    start,
    tool,
    unfenced,
    wants,
    working,
)

READ = {"name": "fs", "arguments": {"read": "/code/a"}}
WRITE = {"name": "fs", "arguments": {"write": "/code/a", "content": "x"}}
ADD = {"name": "git", "arguments": {"cmd": ["add", "."]}}
COMMIT = {"name": "git", "arguments": {"cmd": ["commit", "-m", "x"]}}
INTERRUPTED = {"class": "execution", "code": "call_interrupted", "message": "m"}


def under_way(spec: Spec) -> list[int]:
    """The calls that are asked for now, after a crash as well."""
    return [effect.call for effect in spec.effects(CallTool)]


def begun(spec: Spec, told) -> list[int]:
    return [effect.call for effect in RUN.react(spec.state, told.events) if isinstance(effect, CallTool)]


# -- in order --------------------------------------------------------------------------------------------------------


def test_what_is_written_is_added_and_then_committed():
    spec = working()
    assert begun(spec, spec.when(wants("r1.a.1.llm-1", WRITE, ADD, COMMIT))) == [1]
    assert under_way(spec) == [1]
    assert begun(spec, spec.when(gave("a", 1))) == [2]
    assert under_way(spec) == [2]
    assert begun(spec, spec.when(gave("a", 2))) == [3]
    told = spec.when(gave("a", 3))
    assert [type(event) for event in told.events] == [ToolAnswered, LlmRequested]


def test_a_call_that_fails_does_not_hold_up_what_follows():
    spec = working().after(wants("r1.a.1.llm-1", WRITE, ADD))
    told = spec.when(TakeToolResult("a", 1, 1, error={"class": "execution", "code": "file_error", "message": "m"}))
    assert begun(spec, told) == [2]


def test_reads_that_follow_each_other_go_together():
    spec = working()
    assert begun(spec, spec.when(wants("r1.a.1.llm-1", READ, READ, WRITE, READ, READ))) == [1, 2]
    assert begun(spec, spec.when(gave("a", 2))) == []
    assert under_way(spec) == [1]
    assert begun(spec, spec.when(gave("a", 1))) == [3]
    assert begun(spec, spec.when(gave("a", 3))) == [4, 5]


@pytest.mark.parametrize(
    ("name", "args", "reads"),
    [
        ("fs", {"read": "/code/a"}, True),
        ("fs", {"read": "/code/a", "write": "/code/a"}, False),
        ("fs", {}, False),
        ("fs", "read", False),
        ("http", {"url": "https://docs.rs"}, True),
        ("http", {"url": "https://docs.rs", "method": "POST"}, False),
        ("http", {"url": "https://docs.rs", "method": ["GET"]}, False),
        ("lua", {"src": "return 1"}, True),
        ("git", {"cmd": ["status"]}, False),
        ("shell", {"cmd": ["mix", "test"]}, False),
    ],
)
def test_only_what_surely_changes_nothing_is_a_read(name: str, args, reads: bool):
    assert only_reads(name, args) is reads


# -- what a task does not have ---------------------------------------------------------------------------------------


def barred_calls(spec: Spec) -> list[int]:
    return [effect.call for effect in spec.effects(CallTool) if effect.barred]


def refusal(spec: Spec, call: int) -> dict:
    return next(event.error for event in spec.history if isinstance(event, ToolAnswered) and event.call == call)


def test_a_tool_of_the_role_that_the_node_does_not_name_is_asked_for_only_to_be_refused():
    spec = working(agent("a", node=AgentNode(tools=["fs"])))
    told = spec.when(wants("r1.a.1.llm-1", "shell", READ))
    assert [type(event) for event in told.events] == [LlmAnswered, ToolRequested, ToolRequested]
    assert begun(spec, told) == under_way(spec) == [1, 2]
    assert barred_calls(spec) == [1]
    denial = {"class": "policy_violation", "code": "forbidden_tool", "message": "m", "rule": "task.tools"}
    spec.after(TakeToolResult("a", 1, 1, error=denial))
    assert refusal(spec, 1) == denial
    spec.after(gave("a", 2, {"content": "x"}))
    shown = [json.loads(unfenced(message["content"])) for message in messages(spec) if message["role"] == "tool"]
    assert [shown[0]["error"]["code"], shown[1]] == ["forbidden_tool", {"content": "x"}]


@pytest.mark.parametrize(
    "result",
    [
        TakeToolResult("a", 1, 1, {"content": "what it must not see"}, truncated=True),
        TakeToolResult("a", 1, 1, error={"class": "unavailable", "code": "service_unavailable", "message": "m"}),
        TakeToolResult("a", 1, 1, error={"class": "policy_violation", "code": "approval_required", "message": "m"}),
        TakeToolResult("a", 1, 1, error={"class": "execution", "code": "forbidden_tool", "message": "m"}),
        TakeToolResult("a", 1, 1),
    ],
)
def test_a_tool_that_the_task_does_not_have_is_refused_whatever_the_gateway_says(result: TakeToolResult):
    spec = working(agent("a", node=AgentNode(tools=["fs"]))).after(wants("r1.a.1.llm-1", "shell"))
    told = spec.when(result)
    assert [type(event) for event in told.events] == [ToolAnswered, LlmRequested]
    answered = told.events[0]
    assert (answered.value, answered.truncated) == (None, False)
    assert (answered.error["class"], answered.error["code"]) == ("policy_violation", "forbidden_tool")
    assert (answered.error["tool"], answered.error["tools"]) == ("shell", ["fs"])


def test_a_refusal_waits_for_nobody_and_nobody_waits_for_it():
    spec = working(agent("a", node=AgentNode(tools=["fs"])))
    told = spec.when(wants("r1.a.1.llm-1", "shell", WRITE, "git", READ, "docker"))
    assert begun(spec, told) == under_way(spec) == [1, 2, 3, 5]
    told = spec.when(gave("a", 2))
    assert begun(spec, told) == [4]
    limits = {event.call: event.deadline_at_ms - NOW_MS for event in called(spec)}
    assert limits[1] == limits[3] == limits[5] == BARRED_WAIT_MS < limits[2] == limits[4]


def test_what_the_role_does_not_have_is_for_the_policy_to_refuse():
    spec = working().after(wants("r1.a.1.llm-1", "http", "teleport"))
    assert under_way(spec) == [1]
    spec.after(gave("a", 1))
    assert under_way(spec) == [2]


@pytest.mark.parametrize("node", [AgentNode(tools=[]), AgentNode()])
def test_who_has_no_tools_is_told_so_and_asked_once_more(node: AgentNode):
    spec = working(agent("a", node=node)) if node.tools is not None else run().after(start(agent("a", node=node)))
    told = spec.when(wants("r1.a.1.llm-1", "shell", output="I would"))
    assert [type(event) for event in told.events] == [LlmAnswered, ToolRequested]
    assert begun(spec, told) == under_way(spec) == barred_calls(spec) == [1]
    told = spec.when(denied("a", 1, "forbidden_tool"))
    assert [type(event) for event in told.events] == [ToolAnswered, LlmRequested]
    assert under_way(spec) == []
    assert [message["role"] for message in messages(spec)] == ["user", "assistant", "user"]
    assert "forbidden_tool" in messages(spec)[-1]["content"]
    assert messages(spec)[-1]["content"].endswith(ANSWER_NOW)
    told = spec.when(answer("r1.a.1.llm-1.2", "then so"))
    assert told.events[-1].result["output"] == "then so"


def test_who_insists_on_tools_it_does_not_have_fails_once_that_is_recorded_too():
    spec = working(agent("a", node=AgentNode(tools=[])))
    spec.after(wants("r1.a.1.llm-1", "shell"), denied("a", 1, "forbidden_tool"))
    told = spec.when(wants("r1.a.1.llm-1.2", "git", "shell"))
    assert [type(event) for event in told.events] == [LlmAnswered, ToolRequested, ToolRequested]
    assert begun(spec, told) == barred_calls(spec) == [2, 3]
    told = spec.after(denied("a", 2, "forbidden_tool")).when(denied("a", 3, "forbidden_tool"))
    assert [type(event) for event in told.events] == [ToolAnswered, TaskFailed]
    assert (told.events[1].error["code"], told.events[1].error["tool"]) == ("forbidden_tool", "git")
    assert len(asked(spec)) == 2


# -- the last word ---------------------------------------------------------------------------------------------------


def test_the_last_round_has_no_tools_and_asks_for_an_answer():
    spec = working()
    step = "r1.a.1.llm-1"
    for number in range(1, TOOL_ROUNDS_PER_ATTEMPT_MAX):
        assert asked(spec)[-1].request.params.tools
        spec.after(wants(step, "fs"), gave("a", number))
        step = f"r1.a.1.llm-1.{number + 1}"
    last = asked(spec)[-1].request
    assert len(asked(spec)) == TOOL_ROUNDS_PER_ATTEMPT_MAX
    assert last.params.tools is None
    assert {message["role"] for message in last.input.messages} == {"system", "user", "assistant"}
    assert last.input.messages[-1]["content"].endswith(ANSWER_NOW)
    assert not any("tool_calls" in message for message in last.input.messages)
    told = spec.when(answer(step, "as far as I came"))
    assert [type(event) for event in told.events] == [LlmAnswered, TaskCompleted]
    assert told.events[1].result["output"] == "as far as I came"


def test_calls_beyond_the_bound_are_refused_and_the_answer_is_asked_for():
    spec = working()
    step, made = "r1.a.1.llm-1", 0
    for wanted in (8, 8, 8, 8, 8, 8, 8, 7, 3):
        spec.after(wants(step, *[READ] * wanted))
        step = f"{step.partition('-1.')[0]}-1.{len(asked(spec)) + 1}" if made else "r1.a.1.llm-1.2"
        spec.after(*(gave("a", made + place) for place in range(1, min(wanted, 64 - made) + 1)))
        made += wanted
    refused = [event for event in spec.history if isinstance(event, ToolAnswered) and event.error]
    assert [(event.call, event.error["limit"]) for event in refused] == [(65, "calls"), (66, "calls")]
    assert asked(spec)[-1].request.params.tools is None


# -- gateways that die -----------------------------------------------------------------------------------------------


def test_a_read_whose_gateway_died_is_made_again_in_the_same_attempt_so_often():
    spec = run().after(start(tool_of({"read": "/code/a"})))
    for number in (1, 2):
        told = spec.when(TakeToolResult("a", 1, number, error=INTERRUPTED))
        assert [type(event) for event in told.events] == [ToolAnswered, ToolRequested]
        assert begun(spec, told) == under_way(spec) == [number + 1]
    spec.after(TakeToolResult("a", 1, 3, {"content": "x"}))
    assert (spec.state.tasks["a"].status, spec.state.tasks["a"].attempt) == ("completed", 1)


def test_a_read_whose_gateways_die_too_often_uses_its_attempts():
    spec = run().after(start(tool_of({"read": "/code/a"})))
    spec.after(*(TakeToolResult("a", 1, number, error=INTERRUPTED) for number in (1, 2, 3)))
    assert (spec.state.tasks["a"].status, spec.history[-1].error["code"]) == ("pending", "call_interrupted")


def test_what_may_have_happened_is_tried_as_the_node_allows():
    spec = run().after(start(tool("a", max_attempts=2)))
    told = spec.when(TakeToolResult("a", 1, 1, error=INTERRUPTED))
    assert [type(event) for event in told.events] == [ToolAnswered, TaskRetryScheduled]
    spec.later(60_000).after(TakeTime())
    assert [(effect.attempt, effect.call) for effect in spec.effects(CallTool)] == [(2, 1)]
    told = spec.when(TakeToolResult("a", 2, 1, error=INTERRUPTED))
    assert (type(told.events[1]), told.events[1].error["attempts"]) == (TaskFailed, 2)


def test_a_task_that_is_over_withdraws_what_is_under_way():
    spec = run().after(start(tool("a", timeout_ms=1000, max_attempts=1)))
    told = spec.later(1000).when(TakeTime())
    assert [effect for effect in RUN.react(spec.state, told.events)] == [WithdrawTools("a", 1)]


def tool_of(args):
    return TaskSpec(id="a", node=ToolNode("fs", args))
