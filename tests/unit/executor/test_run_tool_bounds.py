"""How much tools an attempt may use and how long they may take; nodes that are one call; what the audit counts."""

import json

from contracts.limits import TOOL_CALLS_PER_ANSWER_MAX, TOOL_CALLS_PER_ATTEMPT_MAX, TOOL_ROUNDS_PER_ATTEMPT_MAX
from contracts.run import LlmAnswered, TakeTime, TaskCompleted, TaskFailed
from contracts.run_tools import TakeToolResult, ToolAnswered
from services.executor.replay import Replay
from services.executor.run.decider import RUN
from services.executor.run.effects import CallTool
from services.executor.views import task_view, waits_of
from tests.support.spec import NOW_MS
from tests.unit.executor.builders import (
    WORKSPACE,
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
    wants,
    working,
)

# -- bounds ----------------------------------------------------------------------------------------------------------


def test_at_most_eight_calls_of_an_answer_are_made_and_the_model_hears_of_the_others():
    spec = working().after(wants("r1.a.1.llm-1", *["fs"] * 10))
    assert len(called(spec)) == TOOL_CALLS_PER_ANSWER_MAX
    spec.after(*(gave("a", number) for number in range(1, 9)))
    results = [message for message in messages(spec) if message["role"] == "tool"]
    assert [result["tool_call_id"] for result in results] == [f"c{number}" for number in range(1, 11)]
    assert [json.loads(result["content"])["error"]["code"] for result in results[8:]] == ["tool_limit_exceeded"] * 2


def test_an_attempt_has_a_bounded_number_of_rounds():
    spec = working()
    step = "r1.a.1.llm-1"
    for number in range(1, TOOL_ROUNDS_PER_ATTEMPT_MAX):
        spec.after(wants(step, "fs"), gave("a", number))
        step = f"r1.a.1.llm-1.{number + 1}"
    assert len(asked(spec)) == TOOL_ROUNDS_PER_ATTEMPT_MAX
    told = spec.when(wants(step, "fs"))
    assert [type(event) for event in told.events] == [LlmAnswered, TaskFailed]
    error = told.events[1].error
    assert (error["code"], error["limit"], error["max"]) == ("tool_limit_exceeded", "rounds", 24)


def test_an_attempt_has_a_bounded_number_of_calls():
    spec = working()
    step = "r1.a.1.llm-1"
    for number in range(1, 9):
        spec.after(wants(step, *["fs"] * 8))
        spec.after(*(gave("a", 8 * (number - 1) + place) for place in range(1, 9)))
        step = f"r1.a.1.llm-1.{number + 1}"
    assert len(called(spec)) == TOOL_CALLS_PER_ATTEMPT_MAX
    told = spec.when(wants(step, "fs"))
    error = told.events[1].error
    assert (error["code"], error["limit"], error["requested"]) == ("tool_limit_exceeded", "calls", 65)


def test_tools_wait_no_longer_than_their_task():
    spec = working(agent("a", timeout_ms=40_000)).after(wants("r1.a.1.llm-1", "fs"))
    assert [(wait.kind, wait.deadline_at_ms) for wait in waits_of(spec.state)] == [("tool:fs", NOW_MS + 39_750)]
    spec.at(NOW_MS + 40_000).after(TakeTime())
    assert spec.state.tasks["a"].error["code"] == "timeout"
    assert spec.effects() == []


def test_a_task_with_little_time_still_asks():
    spec = run().after(start(tool("a", timeout_ms=100)))
    assert [call.deadline_at_ms for call in spec.effects(CallTool)] == [NOW_MS + 90]


# -- nodes that are one call -----------------------------------------------------------------------------------------


def test_a_tool_node_is_one_call_whose_value_is_the_result():
    spec = run().after(start(tool("a"), workspace=WORKSPACE))
    (call,) = spec.effects(CallTool)
    assert (call.call, call.role, call.tool, call.args, call.for_model) == (
        1,
        "coder",
        "shell",
        {"cmd": ["mix", "test"]},
        False,
    )
    assert [wait.kind for wait in waits_of(spec.state)] == ["tool:shell"]
    told = spec.when(gave("a", 1, {"exit": 1}))
    assert [type(event) for event in told.events] == [ToolAnswered, TaskCompleted]
    assert told.events[1].result == {"exit": 1}
    assert task_view(spec.state.tasks["a"]).tool_calls == 1


def test_a_denied_tool_node_fails_at_once_whatever_the_code():
    for code in ("forbidden_command", "service_unavailable"):
        spec = run().after(start(tool("a")))
        told = spec.when(denied("a", 1, code))
        assert [type(event) for event in told.events] == [ToolAnswered, TaskFailed]
        assert spec.state.tasks["a"].error["code"] == code


def test_a_tool_node_whose_gateway_is_away_tries_again_as_a_new_attempt():
    spec = run().after(start(tool("a")))
    away = {"class": "unavailable", "code": "service_unavailable", "message": "m"}
    spec.after(TakeToolResult("a", 1, 1, error=away))
    assert spec.state.tasks["a"].status == "pending"
    spec.later(60_000).after(TakeTime())
    assert [(call.attempt, call.call) for call in spec.effects(CallTool)] == [(2, 1)]
    spec.after(TakeToolResult("a", 2, 1, error={"class": "execution", "code": "program_not_found", "message": "m"}))
    assert spec.state.tasks["a"].status == "failed"


def test_the_audit_counts_tools_and_finds_the_ones_that_answered_twice():
    spec = working().after(wants("r1.a.1.llm-1", "fs", "git"), gave("a", 1), gave("a", 2), answer("r1.a.1.llm-1.2"))
    replay = Replay("r1")
    replay.take(spec.history)
    assert (replay.audit().tool_calls, replay.audit().tools_run_twice) == (2, 0)
    assert replay.report(None, 1.0).equal
    doubled = Replay("r1")
    doubled.take([*spec.history, next(event for event in spec.history if isinstance(event, ToolAnswered))])
    assert doubled.audit().tools_run_twice == 1


def test_react_asks_only_for_what_is_still_open():
    spec = working()
    told = spec.when(wants("r1.a.1.llm-1", "fs", "git"))
    more = spec.when(gave("a", 1)).events
    effects = RUN.react(spec.state, [*told.events, *more])
    assert [(type(effect), effect.call) for effect in effects] == [(CallTool, 2)]
