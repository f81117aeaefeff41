"""Agents with tools: what they are offered, the loop of answers and what the tools give."""

import json

import pytest

from contracts.limits import (
    TOOL_RESULT_CHARS_MAX,
)
from contracts.run import CancelRun, LlmAnswered, LlmRequested, ResumeRun, TakeTime, TaskCompleted, TaskFailed
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.task import AgentNode
from services.executor.run.decider import RUN
from services.executor.run.effects import CallTool, RunStage, SendLlm, WithdrawTools
from tests.support.spec import NOW_MS
from tests.unit.executor.builders import (
    COMPLETE,
    REWORK,
    STRATEGY,
    WORKSPACE,
    agent,
    answer,
    asked,
    called,
    denied,
    done,
    gave,
    messages,
    no_answer,
    noop,
    released,
    run,
    spawn,
    start,
    tool,
    unfenced,
    wants,
    working,
)


def names(requested: LlmRequested) -> list[str]:
    return [described["function"]["name"] for described in requested.request.params.tools or ()]


# -- what is offered -------------------------------------------------------------------------------------------------


def test_without_a_workspace_nobody_is_offered_tools():
    spec = run().after(start(agent("a")))
    assert names(asked(spec)[0]) == []
    assert [message["role"] for message in messages(spec)] == ["user"]


@pytest.mark.parametrize(
    ("role", "tools"),
    [
        ("coder", ["git", "shell", "fs", "lua"]),
        ("tester", ["docker", "shell"]),
        ("critic", ["fs", "lua"]),
        ("researcher", ["http", "fs"]),
        ("architect", ["fs", "lua"]),
        ("admin", ["git", "shell", "fs", "http", "docker", "lua"]),
        ("quality_engineer", ["docker", "shell"]),
    ],
)
def test_with_a_workspace_a_role_is_offered_its_tools(role: str, tools: list[str]):
    spec = working(agent("a", role=role))
    spec = released(spec, "a") if role == "admin" else spec
    assert names(asked(spec)[0]) == tools
    assert [message["role"] for message in messages(spec)] == ["system", "user"]
    assert "/code" in messages(spec)[0]["content"]


def test_only_roles_that_write_are_told_how_to_write():
    spec = working(agent("a", role="coder"), agent("b", role="critic"))
    shapes = [
        described["function"]["parameters"]["properties"].keys()
        for requested in asked(spec)
        for described in requested.request.params.tools or ()
        if described["function"]["name"] == "fs"
    ]
    assert [set(shape) for shape in shapes] == [{"read", "write", "content", "opts"}, {"read", "opts"}]


def test_a_node_chooses_its_tools_itself():
    nodes = {"none": AgentNode(tools=[]), "few": AgentNode(tools=["fs"]), "own": AgentNode(params={"tools": [{}]})}
    spec = working(*(agent(name, node=node) for name, node in nodes.items()))
    assert [names(requested) for requested in asked(spec)[:2]] == [[], ["fs"]]
    assert asked(spec)[2].request.params.tools == [{}]
    assert names(asked(run().after(start(agent("a", node=AgentNode(tools=["lua"])))))[0]) == ["lua"]


def test_a_tool_that_nobody_knows_is_refused_and_so_is_a_workspace_that_is_no_token():
    told = run().when(start(agent("a", node=AgentNode(tools=["teleport"]))))
    told.then_rejected("bad_request", field="node.tools", task_id="a")
    run().when(start(tool("a", name="a.b"))).then_rejected("bad_request", field="node.tool", task_id="a")
    run().when(start(noop("a"), workspace="../etc")).then_rejected("bad_id", field="options.workspace")


# -- the loop --------------------------------------------------------------------------------------------------------


def test_an_answer_that_wants_tools_asks_for_all_of_them_in_the_same_commit():
    spec = working()
    told = spec.when(wants("r1.a.1.llm-1", "shell", "git"))
    assert [type(event) for event in told.events] == [LlmAnswered, ToolRequested, ToolRequested]
    deadline = spec.state.tasks["a"].deadline_at_ms
    first = told.events[1]
    assert first == ToolRequested("a", 1, "llm-1", 1, "shell", {"cmd": ["do 1"]}, first.deadline_at_ms, {}, "c1")
    assert NOW_MS < first.deadline_at_ms < deadline
    assert [(call.call, call.role, call.tool, call.for_model) for call in spec.effects(CallTool)] == [
        (1, "coder", "shell", True),
    ]
    assert spec.effects(SendLlm, RunStage) == []
    assert spec.state.tasks["a"].status == "in_progress"


def test_results_go_back_to_the_model_when_all_are_there():
    spec = working().after(wants("r1.a.1.llm-1", "shell", "git", output="let me see"))
    told = spec.when(gave("a", 2, {"stdout": "clean", "exit": 0}))
    assert [type(event) for event in told.events] == [ToolAnswered]
    told = spec.when(denied("a", 1))
    assert [type(event) for event in told.events] == [ToolAnswered, LlmRequested]
    next_one = told.events[1]
    assert (next_one.step, next_one.request.corr_id, next_one.request.node_id) == ("llm-1.2", "r1.a.1.llm-1.2", "a-s2")
    assert names(next_one) == ["git", "shell", "fs", "lua"]
    system, user, assistant, one, two = next_one.request.input.messages
    assert [system["role"], user["role"]] == ["system", "user"]
    assert (assistant["role"], assistant["content"]) == ("assistant", "let me see")
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1", "c2"]
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"cmd": ["do 1"]}
    assert (one["role"], one["tool_call_id"], json.loads(unfenced(one["content"]))["error"]["code"]) == (
        "tool",
        "c1",
        "forbidden_command",
    )
    assert (two["tool_call_id"], json.loads(unfenced(two["content"]))) == ("c2", {"stdout": "clean", "exit": 0})


def test_the_final_answer_ends_the_loop_and_every_call_has_its_number():
    spec = working().after(
        wants("r1.a.1.llm-1", "fs"), gave("a", 1), wants("r1.a.1.llm-1.2", "fs", "fs"), gave("a", 3), gave("a", 2)
    )
    assert [call.call for call in called(spec)] == [1, 2, 3]
    assert [requested.step for requested in asked(spec)] == ["llm-1", "llm-1.2", "llm-1.3"]
    assert [message["role"] for message in messages(spec)][2:] == ["assistant", "tool", "assistant", "tool", "tool"]
    told = spec.when(answer("r1.a.1.llm-1.3", "it works"))
    assert [type(event) for event in told.events] == [LlmAnswered, TaskCompleted]
    assert told.events[1].result["output"] == "it works"
    assert (spec.state.status, spec.state.tasks["a"].tool_calls, spec.state.tokens) == ("completed", 3, 21)


def test_a_result_that_comes_twice_or_for_another_attempt_changes_nothing():
    spec = working().after(wants("r1.a.1.llm-1", "fs", "fs"), gave("a", 1))
    for late in (gave("a", 1, "other"), gave("a", 9), gave("a", 2, attempt=2), gave("nobody", 1)):
        spec.when(late).then_nothing()
    spec.after(gave("a", 2), answer("r1.a.1.llm-1.2"))
    spec.when(gave("a", 2)).then_nothing()


def test_after_a_crash_the_same_calls_are_asked_for_again():
    spec = working().after(wants("r1.a.1.llm-1", "shell", "git"))
    before = spec.effects(CallTool)
    spec.after(gave("a", 1))
    assert [(effect.call, effect.tool) for effect in (*before, *spec.effects())] == [(1, "shell"), (2, "git")]
    spec.after(gave("a", 2))
    assert [effect.request.corr_id for effect in spec.effects()] == ["r1.a.1.llm-1.2"]


def test_what_tools_may_do_is_decided_by_the_role_of_the_task_never_by_the_agents_name():
    spec = run().after(start(agent("a", role="quality_engineer"), strategy=STRATEGY, workspace=WORKSPACE))
    spec.after(
        done("a", step="spawn", value=spawn("admin", "code_developer", pattern="parallel")),
        done("a", step="orchestrate", value={}),
    )
    spec.after(wants("r1.a.1.llm-1", "docker"), wants("r1.a.1.llm-2", "shell"))
    assert [(call.call, call.role, call.tool) for call in spec.effects(CallTool)] == [
        (1, "tester", "docker"),
        (2, "tester", "shell"),
    ]


def test_each_agent_of_a_strategy_has_its_own_loop_and_the_others_wait_for_its_last_word():
    spec = run().after(start(agent("a"), strategy=STRATEGY, workspace=WORKSPACE))
    spec.after(done("a", step="spawn", value=spawn("coder", "tester")), done("a", step="orchestrate", value={}))
    spec.after(wants("r1.a.1.llm-1", "fs"))
    assert [requested.step for requested in asked(spec)] == ["llm-1"]
    spec.after(gave("a", 1), answer("r1.a.1.llm-1.2", "LEADS"))
    assert [requested.step for requested in asked(spec)] == ["llm-1", "llm-1.2", "llm-2"]
    work = messages(spec)[-1]["content"].partition("### coder\n")[2]
    assert unfenced(work.strip()) == "LEADS"
    assert spec.effects(RunStage) == []
    spec.after(wants("r1.a.1.llm-2", "shell"), gave("a", 2), answer("r1.a.1.llm-2.2", "FOLLOWS"))
    assert [effect.stage for effect in spec.effects(RunStage)] == ["completion"]
    told = spec.when(done("a", step="complete", value=REWORK))
    assert told.events[-1].step == "llm-3"
    spec.after(wants("r1.a.1.llm-3", "fs"), gave("a", 3), answer("r1.a.1.llm-3.2"), answer("r1.a.1.llm-4"))
    spec.after(done("a", step="complete-1", value=COMPLETE))
    assert spec.state.status == "completed"
    assert [said["output"] for said in spec.state.tasks["a"].result["agents"]] == ["an answer", "an answer"]


def test_agents_in_parallel_wait_for_models_and_tools_at_the_same_time():
    spec = run().after(start(agent("a"), strategy=STRATEGY, workspace=WORKSPACE))
    spec.after(
        done("a", step="spawn", value=spawn("coder", "tester", pattern="parallel")),
        done("a", step="orchestrate", value={}),
    )
    spec.after(wants("r1.a.1.llm-1", "fs"), answer("r1.a.1.llm-2", "done"))
    assert [type(effect) for effect in spec.effects()] == [CallTool]
    assert spec.effects(RunStage) == []
    spec.after(gave("a", 1), answer("r1.a.1.llm-1.2"))
    assert [effect.stage for effect in spec.effects(RunStage)] == ["completion"]


def test_when_a_model_fails_no_more_tools_are_asked_for_and_none_is_waited_for():
    spec = run().after(start(agent("a", max_attempts=1), strategy=STRATEGY, workspace=WORKSPACE))
    spec.after(
        done("a", step="spawn", value=spawn("coder", "tester", "critic", pattern="parallel")),
        done("a", step="orchestrate", value={}),
        wants("r1.a.1.llm-1", "fs"),
        no_answer("r1.a.1.llm-2", "provider_rejected"),
    )
    assert [type(event) for event in spec.when(gave("a", 1)).events] == [ToolAnswered]
    assert [type(event) for event in spec.when(wants("r1.a.1.llm-3", "fs")).events] == [LlmAnswered, TaskFailed]
    assert spec.state.tasks["a"].error["code"] == "provider_rejected"


def test_a_second_attempt_begins_its_conversation_and_its_numbers_anew():
    spec = working().after(wants("r1.a.1.llm-1", "fs"), gave("a", 1), no_answer("r1.a.1.llm-1.2", "provider_error"))
    spec.later(60_000).after(TakeTime())
    assert (asked(spec)[-1].request.corr_id, asked(spec)[-1].request.attempt) == ("r1.a.2.llm-1", 2)
    assert [message["role"] for message in messages(spec)] == ["system", "user"]
    spec.after(wants("r1.a.2.llm-1", "fs"))
    assert (called(spec)[-1].attempt, called(spec)[-1].call) == (2, 1)
    spec.when(gave("a", 1)).then_nothing()


def test_a_cancelled_task_withdraws_its_tools_and_forgets_them():
    spec = working().after(wants("r1.a.1.llm-1", "fs"))
    told = spec.when(CancelRun("enough"))
    assert list(RUN.react(spec.state, told.events)) == [WithdrawTools("a", 1)]
    assert spec.effects() == []
    spec.when(gave("a", 1)).then_nothing()
    spec.after(ResumeRun())
    assert asked(spec)[-1].request.corr_id == "r1.a.2.llm-1"


# -- what models write -----------------------------------------------------------------------------------------------


def test_options_ride_in_the_arguments_and_texts_are_read_as_json():
    calls = [
        {"id": "x", "name": "docker", "arguments": {"image": "i", "opts": {"cpu": 2}}},
        {"id": "x", "type": "function", "function": {"name": "fs", "arguments": '{"read":"/code/a","opts":5}'}},
        {"name": "lua", "arguments": "not json"},
        {"name": "http"},
        5,
    ]
    spec = working().after(wants("r1.a.1.llm-1", *calls))
    assert [(call.tool, call.args, call.opts) for call in called(spec)] == [
        ("docker", {"image": "i"}, {"cpu": 2}),
        ("fs", {"read": "/code/a"}, 5),
        ("lua", "not json", {}),
        ("http", {}, {}),
    ]
    assert len({call.tool_call_id for call in called(spec)}) == 4


def test_an_answer_whose_calls_nobody_can_read_is_the_last_word():
    spec = working().after(answer("r1.a.1.llm-1", "my last word", tool_calls=["nonsense", 5]))
    assert spec.state.tasks["a"].result["output"] == "my last word"


def test_long_results_are_cut_and_say_so():
    spec = working().after(wants("r1.a.1.llm-1", "fs"), gave("a", 1, "x" * 3 * TOOL_RESULT_CHARS_MAX))
    content = unfenced(messages(spec)[-1]["content"])
    assert len(content) < TOOL_RESULT_CHARS_MAX + 100
    assert content.endswith(f"[… cut: {3 * TOOL_RESULT_CHARS_MAX + 2} characters in all]")


def test_a_long_conversation_forgets_its_oldest_results_first():
    spec = working()
    step = "r1.a.1.llm-1"
    for number in range(1, 8):
        spec.after(wants(step, *["fs"] * 8))
        spec.after(*(gave("a", 8 * (number - 1) + place, "x" * 19_000) for place in range(1, 9)))
        step = f"r1.a.1.llm-1.{number + 1}"
    results = [message["content"] for message in messages(spec) if message["role"] == "tool"]
    assert results[0].startswith("[cut")
    assert unfenced(results[-1]).startswith('"xxx')
    assert len(json.dumps(messages(spec))) < 1 << 20
