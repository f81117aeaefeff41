"""The shipped strategy does what the seed's scripts do, with their mistakes repaired."""

import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import services
from contracts.errors import Rejected
from contracts.strategy import STAGES
from services.runtime.lua.host import LuaHost

pytestmark = pytest.mark.asyncio(loop_scope="module")
FOLDER = Path(services.__path__[0]) / "planner" / "strategies" / "standard"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lua() -> AsyncIterator[LuaHost]:
    host = LuaHost(children=1)
    await host.start()
    yield host
    await host.stop()


def script(stage: str) -> str:
    return (FOLDER / f"{stage}.lua").read_text("utf-8")


async def run(lua: LuaHost, stage: str, **context: Any) -> Any:
    return await lua.call(script(stage), context, stage=stage)


async def test_the_manifest_names_every_stage(lua: LuaHost):
    manifest = tomllib.loads((FOLDER / "strategy.toml").read_text("utf-8"))
    assert manifest["name"] == "standard"
    assert set(manifest["scripts"]) == set(STAGES)
    for name in manifest["scripts"].values():
        await lua.check((FOLDER / name).read_text("utf-8"))


@pytest.mark.parametrize("stage", STAGES)
async def test_a_script_makes_no_global(lua: LuaHost, stage: str):
    src = (
        "local before = {} for name in pairs(_ENV) do before[name] = true end\n"
        f"local value = (function()\n{script(stage)}\nend)()\n"
        "for name in pairs(_ENV) do if not before[name] then error('global ' .. name) end end return value"
    )
    context = {"task": {"description": "x", "estimated_complexity": 9}, "agents": [{"role": "a"}, {"role": "b"}]}
    assert await lua.call(src, context)


@pytest.mark.parametrize(
    ("complexity", "shares"),
    [(10, [2.0, 2.5, 4.0, 1.5]), (6, [1.2, 1.5, 2.4]), (8.0, [1.6, 2.0, 3.2]), (5.0, [1.0, 1.25, 2.0])],
)
async def test_decomposes_by_shares(lua: LuaHost, complexity: float, shares: list[float]):
    plan = await run(lua, "decomposition", task={"description": "X", "estimated_complexity": complexity})
    assert [subtask["estimated_complexity"] for subtask in plan["subtasks"]] == shares
    assert plan["strategy"] == "sequential_with_checkpoints"
    assert plan["reasoning"] == f"Complex task ({complexity:.1f}) decomposed into {len(shares)} SPARC phases"


async def test_subtasks_name_each_other(lua: LuaHost):
    plan = await run(lua, "decomposition", task={"description": "X", "estimated_complexity": 10})
    told = [(s["id"], s["description"], s["task_type"], s["sparc_phase"], s["dependencies"]) for s in plan["subtasks"]]
    assert told == [
        ("spec", "Design and specify: X", "milestone", "specification", []),
        ("arch", "Architecture for: X", "milestone", "architecture", ["spec"]),
        ("impl", "Implement: X", "implementation", "refinement", ["arch"]),
        ("test", "Test: X", "milestone", "completion_phase", ["impl"]),
    ]
    assert plan["reasoning"] == "Complex task (10.0) decomposed into 4 SPARC phases"


async def test_a_simple_task_is_atomic(lua: LuaHost):
    plan = await run(lua, "decomposition", task={"description": "X", "estimated_complexity": 4.9})
    assert plan == {
        "subtasks": [],
        "strategy": "atomic",
        "reasoning": "Task is simple enough to execute atomically",
    }


async def test_a_task_without_complexity_counts_as_five(lua: LuaHost):
    plan = await run(lua, "decomposition", task={"description": "X", "estimated_complexity": None})
    assert len(plan["subtasks"]) == 3


QUALITY = {"role": "quality_engineer", "model": "claude-sonnet-4.5", "priority": "high"}
SECURITY = {"role": "security_analyst", "model": "claude-sonnet-4.5"}


@pytest.mark.parametrize(
    ("description", "complexity", "phase", "role", "model", "more"),
    [
        ("Fix auth", 8.5, "refinement", "code_developer", "gemini-2.5-pro", [QUALITY, SECURITY]),
        ("x", 6, "refinement", "code_developer", "gemini-1.5-flash", []),
        ("x", 7.0, "refinement", "code_developer", "gemini-1.5-flash", []),
        ("x", 7.1, "refinement", "code_developer", "gemini-2.5-pro", []),
        ("x", 8.0, "refinement", "code_developer", "gemini-2.5-pro", []),
        ("x", 2, "specification", "project_manager", "claude-sonnet-4.5", []),
        ("x", 8.1, "specification", "project_manager", "claude-sonnet-4.5", [QUALITY]),
        ("Security review", 2, "architecture", "architecture_analyst", "claude-sonnet-4.5", [SECURITY]),
        ("x", 8.0, "completion_phase", "code_developer", "claude-sonnet-4.5", []),
        ("x", 7.9, "pseudocode", "code_developer", "gemini-2.5-pro", []),
        ("x", 5.0, None, "code_developer", "gemini-2.5-pro", []),
        ("x", 4.9, None, "code_developer", "gemini-1.5-flash", []),
        ("AUTHOR page", None, None, "code_developer", "gemini-2.5-pro", [SECURITY]),
        (None, 1, None, "code_developer", "gemini-1.5-flash", []),
    ],
)
async def test_spawns_the_primary_agent_first(
    lua: LuaHost, description: str, complexity: float, phase: str, role: str, model: str, more: list[Any]
):
    task = {"description": description, "estimated_complexity": complexity, "sparc_phase": phase}
    team = await run(lua, "agent_spawning", task=task)
    assert team["agents"] == [{"role": role, "model": model, "primary": True}, *more]
    assert team["orchestration"] == {"pattern": "leader_follower" if more else "solo"}


async def test_one_agent_works_alone(lua: LuaHost):
    plan = await run(lua, "orchestration", task={"description": "Fix it"}, agents=[{"role": "code_developer"}])
    assert plan == {
        "pattern": "solo",
        "steps": [{"agent": 1, "after": [], "instruction": "Complete the task: Fix it"}],
    }


async def test_followers_review_the_leader_s_result_side_by_side(lua: LuaHost):
    roles = ["code_developer", "quality_engineer", "security_analyst", "poet"]
    plan = await run(lua, "orchestration", task={"description": "X"}, agents=[{"role": role} for role in roles])
    assert plan["pattern"] == "leader_follower"
    assert [(step["agent"], step["after"]) for step in plan["steps"]] == [(1, []), (2, [1]), (3, [1]), (4, [1])]
    for step, view in zip(plan["steps"][1:], ["cases", "threats", "view of your role"], strict=True):
        assert view in step["instruction"]
    assert "as quality engineer." in plan["steps"][1]["instruction"]


async def test_nobody_to_orchestrate_is_an_error(lua: LuaHost):
    with pytest.raises(Rejected) as refused:
        await run(lua, "orchestration", task={}, agents=[])
    assert refused.value.code == "lua_error"


DONE = {"id": "a", "status": "completed"}


async def test_completes_at_the_thresholds(lua: LuaHost):
    verdict = await run(
        lua,
        "completion",
        task={"description": "X"},
        execution_results=[DONE, DONE],
        tests={"unit_tests": {"failed": 0}, "integration_tests": {"failed": None}},
        code_quality={"coverage": 0.80, "complexity": 10},
    )
    assert verdict == {
        "status": "completed",
        "confidence": 0.95,
        "reasoning": "All subtasks completed, tests passed, quality gates met",
    }


@pytest.mark.parametrize(
    ("context", "fixes"),
    [
        ({"code_quality": {"coverage": 0.79}}, ["Coverage below 80%"]),
        ({"code_quality": {"complexity": 10.5}}, ["Complexity too high"]),
        (
            {"code_quality": {"coverage": 0.1, "complexity": 11}},
            ["Coverage below 80%, Complexity too high"],
        ),
        ({"execution_results": [DONE, {"id": "b", "status": "failed"}, {}]}, ["2 subtasks incomplete"]),
        ({"tests": {"unit_tests": {"failed": 2}, "integration_tests": {"failed": 1}}}, ["3 test failures"]),
        (
            {
                "execution_results": [{"id": "b", "status": "failed"}],
                "tests": {"unit_tests": {"failed": 1}},
                "code_quality": {"coverage": 0.5},
            },
            ["1 subtasks incomplete", "1 test failures", "Coverage below 80%"],
        ),
    ],
)
async def test_asks_for_rework_and_says_what(lua: LuaHost, context: dict[str, Any], fixes: list[str]):
    verdict = await run(lua, "completion", task={"description": "X"}, **context)
    assert verdict == {
        "status": "needs_rework",
        "confidence": 0.6,
        "reasoning": "; ".join(fixes),
        "required_fixes": fixes,
    }


async def test_nothing_known_is_nothing_against_it(lua: LuaHost):
    verdict = await run(lua, "completion", task={}, execution_results=None, tests=None, code_quality=None)
    assert verdict["status"] == "completed"


async def test_a_script_sees_the_whole_context(lua: LuaHost):
    context = {"task": {}, "phase": "x", "history": [], "metrics": {"n": 1}}
    src = "local names = {} for name in pairs(context) do table.insert(names, name) end table.sort(names) return names"
    assert await lua.call(src, context) == ["history", "metrics", "phase", "task"]
