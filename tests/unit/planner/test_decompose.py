"""A goal becomes a graph: recursion, ids, roles, inheritance, and every wrong answer of a script."""

from collections.abc import Callable
from typing import Any

import pytest

from contracts.errors import Rejected
from contracts.limits import GOAL_CHARS_MAX, ID_CHARS_MAX
from contracts.task import AgentNode, GroupNode
from services.planner.decompose import PLAN_TASKS_MAX, decompose

Script = Callable[[dict[str, Any]], Any]


class PythonLua:
    """Runs a Python function where the planner would run Lua; keeps the contexts it was called with."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.contexts: list[dict[str, Any]] = []

    async def call(self, src: str, context: Any, *, argv: Any = (), timeout_ms: int = 5000, stage: str = "lua") -> Any:
        assert (src, stage) == ("script", "decomposition")
        self.contexts.append(context)
        return self.script(context)


def halves(context: dict[str, Any]) -> dict[str, Any]:
    half = context["task"]["estimated_complexity"] / 2
    return {
        "subtasks": [
            {"id": "left", "description": "Left", "estimated_complexity": half, "dependencies": []},
            {"id": "right", "description": "Right", "estimated_complexity": half, "dependencies": ["left"]},
        ],
        "strategy": "halves",
        "reasoning": "two are easier",
    }


def once(*subtasks: dict[str, Any]) -> Script:
    return lambda context: {"subtasks": list(subtasks) if context["task"]["depth"] == 0 else []}


async def plan(script: Script, goal: str = "Build it", complexity: float = 10.0):
    return await decompose(goal, complexity, "script", PythonLua(script))


async def refusal(script: Script) -> Rejected:
    with pytest.raises(Rejected) as refused:
        await plan(script)
    return refused.value


async def test_without_a_strategy_the_goal_is_one_atomic_task():
    made = await decompose("Write a\npoem", 10.0, None, PythonLua(halves))
    [task] = made.tasks
    assert (task.id, task.title, task.description, task.task_type, task.depth) == (
        "goal", "Write a", "Write a\npoem", "goal", 0,
    )  # fmt: skip
    assert made.depth == 0


async def test_a_small_goal_is_atomic_and_no_script_is_asked():
    lua = PythonLua(halves)
    made = await decompose("Fix a typo", 4.9, "script", lua)
    assert [task.id for task in made.tasks] == ["goal"]
    assert lua.contexts == []


async def test_top_level_ids_are_as_the_script_gave_them_and_nested_ones_carry_their_parents():
    made = await plan(halves)
    assert [task.id for task in made.tasks] == ["left", "right", "left-left", "left-right", "right-left", "right-right"]
    by_id = {task.id: task for task in made.tasks}
    assert by_id["right"].depends_on == ["left"]
    assert by_id["right-right"].depends_on == ["right-left"]
    assert by_id["left-left"].parent == "left"
    assert (by_id["left"].depth, by_id["left-left"].depth, made.depth) == (1, 2, 2)
    assert by_id["left"].node == GroupNode(strategy="halves", reasoning="two are easier")
    assert by_id["left-left"].node == AgentNode()
    assert made.reasoning == "two are easier"


async def test_a_strategy_that_never_gets_smaller_ends_at_depth_five():
    made = await plan(lambda context: {"subtasks": [{"id": "x", "description": "Same", "estimated_complexity": 100}]})
    assert [task.id for task in made.tasks] == ["x", "x-x", "x-x-x", "x-x-x-x", "x-x-x-x-x"]
    assert made.depth == 5
    assert made.tasks[-1].node == AgentNode()


async def test_a_strategy_that_explodes_ends_at_the_bound_of_a_plan():
    wide = [{"id": f"n{number}", "description": "Wide", "estimated_complexity": 100} for number in range(64)]
    made = await plan(lambda _: {"subtasks": wide})
    assert PLAN_TASKS_MAX - 64 < len(made.tasks) <= PLAN_TASKS_MAX
    assert sum(1 for task in made.tasks if task.depth == 1) == 64


async def test_long_ids_are_shortened_and_stay_different_and_the_same():
    local = ["a" * 60 + "1", "a" * 60 + "2"]

    def script(context: dict[str, Any]) -> dict[str, Any]:
        return {"subtasks": [{"id": one, "description": "x", "estimated_complexity": 6} for one in local]}

    ids = [task.id for task in (await plan(script)).tasks]
    assert ids == [task.id for task in (await plan(script)).tasks]
    assert len(set(ids)) == len(ids) == sum(2**depth for depth in range(1, 6))
    assert max(map(len, ids)) <= ID_CHARS_MAX


async def test_joined_ids_that_would_collide_are_told_apart():
    def script(context: dict[str, Any]) -> dict[str, Any]:
        match context["task"]["id"]:
            case "goal":
                local = ["a", "a-b"]
            case "a":
                local = ["b-c", "b"]
            case "a-b":
                local = ["c"]
            case _:
                local = []
        return {"subtasks": [{"id": one, "description": one, "estimated_complexity": 9} for one in local]}

    ids = [task.id for task in (await plan(script)).tasks]
    assert len(set(ids)) == len(ids) == 5


async def test_roles_follow_the_sparc_phase_unless_the_script_says_one():
    phases = ["specification", "pseudocode", "architecture", "refinement", "completion", "completion_phase", "other"]
    subtasks = [
        {"id": f"p{n}", "description": "x", "sparc_phase": phase, "estimated_complexity": 1}
        for n, phase in enumerate(phases)
    ]
    subtasks.append({"id": "own", "description": "x", "role": "security_analyst", "estimated_complexity": 1})
    made = await plan(once(*subtasks))
    assert [task.role for task in made.tasks] == [
        "architect", "architect", "architect", "coder", "tester", "tester", "coder", "critic",
    ]  # fmt: skip


async def test_subtasks_inherit_what_the_script_leaves_out():
    def script(context: dict[str, Any]) -> dict[str, Any]:
        if context["task"]["depth"] == 0:
            first = {"id": "a", "description": "A", "estimated_complexity": 9, "priority": 2, "context": {"k": 1}}
            return {"subtasks": [{**first, "acceptance_criteria": ["it works"]}]}
        return {"subtasks": [{"description": "One"}, {"description": "Two", "dependencies": ["task-1"]}]}

    made = await plan(script)
    first = next(task for task in made.tasks if task.id == "a-task-1")
    assert (first.priority, first.context, first.acceptance_criteria) == (2, {"k": 1}, ["it works"])
    assert first.estimated_complexity == 4.5
    assert next(task for task in made.tasks if task.id == "a-task-2").depends_on == ["a-task-1"]


async def test_only_what_agents_do_is_decomposed():
    asked = []

    def script(context: dict[str, Any]) -> dict[str, Any]:
        asked.append(context["task"]["id"])
        return {"subtasks": [{"id": "n", "description": "x", "estimated_complexity": 9, "node": {"type": "noop"}}]}

    assert len((await plan(script)).tasks) == 1
    assert asked == ["goal"]


async def test_what_a_human_is_to_release_is_not_decomposed():
    """Its parts would be other tasks than the one that was shown, and a group of it would open no gate."""
    subtasks = {"id": "deploy", "description": "Deploy", "role": "admin", "estimated_complexity": 50.0}

    def script(context: dict[str, Any]) -> dict[str, Any]:
        return {"subtasks": [subtasks]} if context["task"]["depth"] == 0 else halves(context)

    [task] = (await plan(script)).tasks
    assert (task.id, task.role, isinstance(task.node, AgentNode)) == ("deploy", "admin", True)


async def test_the_script_sees_task_phase_history_and_metrics():
    lua = PythonLua(halves)
    await decompose("Build it", 10.0, "script", lua)
    first, second = lua.contexts[:2]
    assert set(first) == {"task", "phase", "history", "metrics"}
    assert first["task"]["description"] == "Build it"
    assert first["history"] == []
    assert second["history"] == [{"task": "goal", "strategy": "halves", "reasoning": "two are easier"}]
    assert (second["metrics"]["depth"], second["metrics"]["tasks_planned"]) == (1, 2)


async def test_complexity_is_kept_within_its_bounds():
    made = await plan(once(*({"id": f"c{n}", "description": "x", "estimated_complexity": n} for n in (-5, 200))))
    assert [task.estimated_complexity for task in made.tasks] == [0.0, 100.0]


async def test_descriptions_stay_within_what_a_task_may_have():
    made = await plan(once({"id": "a", "description": "x" * (GOAL_CHARS_MAX + 10), "estimated_complexity": 1}))
    assert len(made.tasks[0].description) == GOAL_CHARS_MAX


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, "lua_bad_result"),
        ([], "lua_bad_result"),
        ({"subtasks": "many"}, "lua_bad_result"),
        ({"reasoning": "forgot"}, "lua_bad_result"),
        ({"subtasks": [{"description": "x"}] * 65}, "lua_bad_result"),
        ({"subtasks": [7]}, "lua_bad_result"),
        ({"subtasks": [{}]}, "lua_bad_result"),
        ({"subtasks": [{"description": " "}]}, "lua_bad_result"),
        ({"subtasks": [{"description": "x", "task_type": "epic"}]}, "lua_bad_result"),
        ({"subtasks": [{"description": "x", "estimated_complexity": "big"}]}, "lua_bad_result"),
        ({"subtasks": [{"description": "x", "estimated_complexity": float("inf")}]}, "lua_bad_result"),
        ({"subtasks": [{"description": "x", "node": {"type": "group"}}]}, "lua_bad_result"),
        ({"subtasks": [{"description": "x", "node": {"type": "wish"}}]}, "unknown_node_type"),
        ({"subtasks": [{"description": "x", "id": "a.b"}]}, "bad_id"),
        ({"subtasks": [{"description": "x", "id": "a"}, {"description": "y", "id": "a"}]}, "duplicate_id"),
        ({"subtasks": [{"description": "x", "id": "a", "dependencies": ["spec"]}]}, "unknown_dependency"),
        ({"subtasks": [{"description": "x", "role": "wizard"}]}, "unknown_role"),
        ({"subtasks": [{"description": "x", "id": "a", "dependencies": ["a"]}]}, "cycle"),
        ({"subtasks": [{"description": "x", "timeout_ms": 0}]}, "bad_request"),
    ],
)
async def test_refuses_what_no_graph_can_be_made_of(answer, code):
    assert (await refusal(lambda _: answer)).code == code


async def test_a_refusal_names_the_task_and_the_field():
    error = await refusal(lambda _: {"subtasks": [{"description": "x", "id": "a", "dependencies": ["spec"]}]})
    assert error.detail == {"task_id": "goal", "dependency": "spec", "field": "subtasks[1].dependencies"}


async def test_a_plan_that_is_too_large_is_refused():
    context = {"blob": "x" * 1_000_000}
    subtasks = [{"id": f"s{n}", "description": "x", "estimated_complexity": 1, "context": context} for n in range(5)]
    assert (await refusal(lambda _: {"subtasks": subtasks})).code == "too_large"
