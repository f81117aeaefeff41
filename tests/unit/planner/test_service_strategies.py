"""Strategies over NATS: stored, changed, gone back from, tried; broken ones refused or cut."""

import asyncio
from typing import Any

from contracts.reply import RemoteRejected
from services.planner.handlers.strategies import TRIALS_WAITING_MAX
from tests.support.eventually import eventually
from tests.support.service_process import ServiceProcess
from tests.unit.planner.desk import COUNTING, GOAL, Desk


async def test_a_fresh_store_has_the_standard_strategy_and_seeding_again_changes_nothing(desk: Desk):
    [standard] = await desk.ask("strategy.list")
    assert (standard["name"], standard["version"]) == ("standard", 1)
    assert standard["scripts"] == ["decomposition", "agent_spawning", "orchestration", "completion"]
    assert [view["version"] for view in await desk.ask("strategy.seed")] == [1]
    assert await desk.commits("strategy", "standard") == 1


async def test_a_changed_strategy_counts_for_the_next_goal_at_once(desk: Desk, planner: ServiceProcess):
    pid = planner.pid
    for version in (1, 2):
        view = await desk.ask(
            "strategy.put",
            name="quick",
            pattern="hotfix",
            priority=10,
            scripts={"decompose": COUNTING % (version, version)},
        )
        assert view["version"] == version
        plan = await desk.ask("goal.plan", goal="A HOTFIX for login")
        assert (plan["strategy"], plan["reasoning"]) == (f"quick@{version}", f"v{version}")
    assert (await desk.ask("goal.plan", goal="A hotfix", strategy="quick@1"))["reasoning"] == "v1"
    assert (await desk.ask("strategy.rollback", name="quick"))["version"] == 1
    assert (await desk.ask("goal.plan", goal="A hotfix"))["reasoning"] == "v1"
    assert (await desk.ask("strategy.activate", name="quick", version=2))["version"] == 2
    await desk.ask("strategy.rollback", name="quick")
    assert (await desk.ask("strategy.rollback", name="quick"))["version"] == 0
    assert (await desk.ask("goal.plan", goal="A hotfix"))["strategy"] == "standard@1"
    assert (await desk.ask("strategy.rollback", name="standard"))["version"] == 0
    plan = await desk.ask("goal.plan", goal="A hotfix")
    assert (plan.get("strategy"), [task["id"] for task in plan["tasks"]]) == (None, ["goal"])
    assert planner.pid == pid
    assert not planner.dead


async def test_a_strategy_that_does_not_compile_is_refused_and_the_old_one_stays(desk: Desk):
    cases: list[tuple[Any, str]] = [
        ("local a = 1\nreturn {", "lua_syntax"),
        ("return os.execute('id')", "lua_restricted"),
        ("return " + "x" * (1 << 20), "too_large"),
    ]
    for source, code in cases:
        error = await desk.refused("strategy.put", name="standard", scripts={"decomposition": source})
        assert (error["code"], error["stage"]) == (code, "decomposition")
        if code == "lua_syntax":
            assert error["line"] == 2
        assert (await desk.ask("goal.plan", goal=GOAL))["strategy"] == "standard@1"


async def test_refuses_wrong_strategies_with_their_code(desk: Desk):
    cases: list[tuple[Any, str]] = [
        ({"scripts": {"dance": "return 1"}}, "bad_request"),
        ({"scripts": {"decomposition": "return 1"}, "pattern": "("}, "bad_request"),
        ({"scripts": {"decomposition": "return 1"}, "pattern": "x" * 501}, "bad_request"),
        ({"scripts": {}}, "bad_request"),
        ({"name": "a b", "scripts": {"decomposition": "return 1"}}, "bad_id"),
    ]
    for body, code in cases:
        assert (await desk.refused("strategy.put", **{"name": "new", **body}))["code"] == code


async def test_a_script_that_breaks_is_cut_with_a_code_and_the_planner_lives(desk: Desk):
    cases: list[tuple[Any, str]] = [
        ("while true do end", "lua_timeout"),
        ("error('no')", "lua_error"),
        ("local s = 'x' while true do s = s .. s end", "lua_memory"),
        ("return 7", "lua_bad_result"),
        ('return {subtasks={{id="a", description="x", dependencies={"spec"}}}}', "unknown_dependency"),
    ]
    for source, code in cases:
        await desk.ask("strategy.put", name="bad", pattern="break", priority=9, scripts={"decomposition": source})
        assert (await desk.refused("goal.submit", goal="break it"))["code"] == code
        assert (await desk.ask("goal.plan", goal=GOAL))["strategy"] == "standard@1"
        assert await desk.commands() == []


async def test_a_stage_is_tried_without_effect(desk: Desk):
    trial = await desk.ask(
        "strategy.try",
        name="standard",
        stage="spawn",
        task={"description": "Fix auth", "estimated_complexity": 8.5, "sparc_phase": "refinement"},
    )
    assert (trial["strategy"], trial["stage"]) == ("standard@1", "agent_spawning")
    assert len(trial["value"]["agents"]) == 3
    for complexity, count in ((10, 4), (6, 3), (4.9, 0)):
        task = {"description": "X", "estimated_complexity": complexity}
        trial = await desk.ask("strategy.try", name="standard", stage="decompose", task=task)
        assert len(trial["value"]["subtasks"]) == count
    for coverage, status in ((0.79, "needs_rework"), (0.80, "completed")):
        gate = {"code_quality": {"coverage": coverage, "complexity": 10}}
        assert (await desk.ask("strategy.try", name="standard", stage="complete", context=gate))["value"][
            "status"
        ] == status
    assert (await desk.ask("strategy.try", name="standard", stage="orchestrate"))["value"]["pattern"] == "solo"
    assert (await desk.refused("strategy.try", name="standard", stage="dance"))["code"] == "bad_request"
    assert (await desk.refused("strategy.try", name="nobody", stage="spawn"))["code"] == "strategy_not_found"


async def test_trials_that_loop_keep_no_plan_waiting_and_too_many_are_refused(desk: Desk):
    await desk.ask("strategy.put", name="loop", pattern="never", scripts={"decompose": "while true do end"})
    trials = [
        asyncio.create_task(desk.ask("strategy.try", name="loop", stage="decompose", task={"description": "x"}))
        for _ in range(20)
    ]
    began_s = asyncio.get_running_loop().time()
    assert (await desk.ask("goal.plan", goal=GOAL))["strategy"] == "standard@1"
    assert asyncio.get_running_loop().time() - began_s < 4.0
    refused = await eventually(lambda: [trial.exception() for trial in trials if trial.done()])
    assert {error.code for error in refused if isinstance(error, RemoteRejected)} <= {"mailbox_full", "lua_timeout"}
    assert sum(getattr(error, "code", "") == "mailbox_full" for error in refused) == 20 - 1 - TRIALS_WAITING_MAX
    for trial in trials:
        trial.cancel()
    await asyncio.wait(trials)
