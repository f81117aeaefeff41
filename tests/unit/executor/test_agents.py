"""What Lua says is understood or refused with a code; what it does not say has a fallback."""

from typing import Any

import pytest

from contracts.errors import Rejected
from contracts.task import TaskSpec
from services.executor import agents

TWO: list[dict[str, Any]] = [{"role": "coder"}, {"role": "tester"}]


def test_a_role_of_the_strategy_is_shown_as_it_is():
    found = agents.spawned({"agents": [{"role": "security_analyst", "model": "m", "priority": "high"}]})
    assert found == ([{"role": "security_analyst", "model": "m", "priority": "high"}], "solo")


def test_several_agents_follow_a_leader_unless_something_else_is_said():
    assert agents.spawned({"agents": TWO}).pattern == "leader_follower"
    assert agents.spawned({"agents": TWO, "orchestration": {"pattern": "parallel"}}).pattern == "parallel"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "lua_bad_result"),
        ([], "no_agents"),
        ([1], "lua_bad_result"),
        ({}, "no_agents"),
        ({"agents": []}, "no_agents"),
        ({"agents": "coder"}, "lua_bad_result"),
        ({"agents": ["coder"]}, "lua_bad_result"),
        ({"agents": [{"model": "m"}]}, "unknown_role"),
        ({"agents": [{"role": "coder", "model": "a b"}]}, "lua_bad_result"),
        ({"agents": [{"role": "coder", "model": 5}]}, "lua_bad_result"),
        ({"agents": [{"role": "coder", "temperature": "hot"}]}, "lua_bad_result"),
        ({"agents": [{"role": "coder"}] * 17}, "lua_bad_result"),
        ({"agents": [{"role": "coder", "prompt": "x" * 200_000}]}, "lua_bad_result"),
    ],
)
def test_agents_that_cannot_be_understood(value: Any, code: str):
    with pytest.raises(Rejected) as refused:
        agents.spawned(value)
    assert refused.value.code == code


def test_steps_count_from_one_in_lua_and_from_zero_here():
    steps = [{"agent": 1, "after": {}}, {"agent": 2.0, "after": [1], "instruction": "check"}]
    assert agents.orchestrated({"steps": steps}, TWO, "solo") == [
        {"agent": 0, "after": []},
        {"agent": 1, "after": [0], "instruction": "check"},
    ]


def test_a_step_may_name_its_agent_by_role():
    steps = [{"agent": "tester"}, {"agent": "coder", "after": [1]}]
    assert [step["agent"] for step in agents.orchestrated({"steps": steps}, TWO, "solo")] == [1, 0]


@pytest.mark.parametrize(
    ("pattern", "after"),
    [("solo", [[], [0], [0]]), ("parallel", [[], [], []]), ("sequential", [[], [0], [1]]), ("", [[], [0], [0]])],
)
def test_without_steps_the_pattern_gives_the_order(pattern: str, after: list[list[int]]):
    steps = agents.orchestrated({"pattern": pattern}, [*TWO, {"role": "critic"}], "x")
    assert [step["after"] for step in steps] == after


@pytest.mark.parametrize(
    "value",
    [
        "parallel",
        {"steps": "all"},
        {"steps": ["one"]},
        {"steps": [{"agent": 3}]},
        {"steps": [{"agent": 0}]},
        {"steps": [{"agent": 1.5}]},
        {"steps": [{"agent": True}]},
        {"steps": [{"agent": "king"}]},
        {"steps": [{"agent": 1, "after": [1]}]},
        {"steps": [{"agent": 1, "after": [2]}, {"agent": 2, "after": [1]}]},
        {"steps": [{"agent": 1, "after": [9]}]},
        {"steps": [{"agent": 1, "after": ["x"]}]},
        {"steps": [{"agent": 1}] * 33},
    ],
)
def test_steps_that_cannot_be_carried_out(value: Any):
    with pytest.raises(Rejected) as refused:
        agents.orchestrated(value, TWO, "solo")
    assert refused.value.code == "lua_bad_result"


def test_a_verdict_is_read_with_lua_habits():
    verdict = agents.judged({"status": "completed", "confidence": 1, "reasoning": "fine", "required_fixes": {}})
    assert verdict == ("completed", 1.0, "fine", [])
    assert agents.judged({"status": "needs_rework", "required_fixes": ["a", 2]}).fixes == ["a", "2"]


@pytest.mark.parametrize("value", [None, {}, {"status": "maybe"}, {"status": "completed", "confidence": "high"}])
def test_a_verdict_that_cannot_be_understood(value: Any):
    with pytest.raises(Rejected) as refused:
        agents.judged(value)
    assert refused.value.code == "lua_bad_result"


def test_a_stage_without_a_script_says_what_is_understood():
    task = {"id": "a", "role": "tester", "estimated_complexity": 8.0}
    spawned = agents.spawned(agents.fallback_stage("agent_spawning", {"task": task}))
    assert (spawned.agents[0]["role"], spawned.agents[0]["model"]) == ("tester", "claude-sonnet-4.5")
    assert agents.orchestrated(agents.fallback_stage("orchestration", {"pattern": "solo"}), spawned.agents, "solo")
    good = {"execution_results": [{"id": "a-1", "status": "completed"}]}
    bad = {"execution_results": [{"id": "a-1", "status": "failed"}]}
    assert agents.judged(agents.fallback_stage("completion", good)).status == "completed"
    assert agents.judged(agents.fallback_stage("completion", bad)).fixes == ["1 subtasks incomplete"]


def test_the_fallback_agent_has_the_role_of_the_task():
    found = agents.fallback_agents(TaskSpec(id="a", role="critic", estimated_complexity=4.9))
    assert found.agents == [{"role": "critic", "model": "gemini-1.5-flash", "temperature": 0.7, "max_tokens": 4000}]


@pytest.mark.parametrize("tests", [{}, None, "nonsense", {"unit_tests": 1}, {"unit_tests": {"failed": 0}}])
def test_without_a_script_the_gate_completes_what_every_agent_answered(tests: Any):
    context = {"execution_results": [{"id": "a-1", "status": "completed"}], "tests": tests}
    assert agents.judged(agents.fallback_stage("completion", context)).status == "completed"


def test_without_a_script_the_gate_counts_what_is_incomplete_and_tests_that_failed():
    context = {
        "execution_results": [{"id": "a-1", "status": "failed"}, {"id": "a-2", "status": "completed"}],
        "tests": {"unit_tests": {"failed": 2}},
    }
    verdict = agents.judged(agents.fallback_stage("completion", context))
    assert (verdict.status, verdict.fixes) == ("needs_rework", ["1 subtasks incomplete", "2 test failures"])
