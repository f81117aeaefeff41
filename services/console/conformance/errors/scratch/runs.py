"""On the scratch instance: runs whose strategy, agents or budgets lead nowhere."""

import asyncio
from typing import Any, Final

from contracts.limits import TOOL_ROUNDS_PER_ATTEMPT_MAX
from services.console.conformance.errors.responder import serving
from services.console.conformance.errors.scenario import Scenario, Sight
from services.console.conformance.errors.scratch.instance import Scratch

NOBODY_WORKS: Final = {"agent_spawning": "return {agents = {}}"}
NEVER_GOOD: Final = {
    "agent_spawning": "return {agents = {{role = 'coder', model = 'mock'}}}",
    "completion": "return {status = 'needs_rework', required_fixes = {'all of it'}}",
}
SLOW: Final = "local n = 0 for i = 1, 2e7 do n = n + i end return {subtasks = {}, n = n}"
CROWD: Final = 20
GARBAGE: Final = "conformance.garbage"
PRICED: Final = {"type": "llm", "model": "mock:price=0.01/call", "prompt": "Hello"}


async def _alone(scratch: Scratch, sight: Sight, code: str, node: dict[str, Any], **more: Any) -> None:
    """A run of one task, which must fail under this code."""
    run_id = f"conformance-{code}"
    view = await scratch.run(run_id, [{"id": "a", "node": node, "max_attempts": 1}], **more)
    sight.error(code, view["tasks"][0].get("error"), f"task a of the run {run_id}")


async def _strategies(scratch: Scratch, sight: Sight) -> None:
    for name, scripts in (("nobody-works", NOBODY_WORKS), ("never-good", NEVER_GOOD)):
        strategy = {"name": f"conformance-{name}", "scripts": scripts, "pattern": f"conformance {name}"}
        await scratch.ask("planner.strategy.put", strategy)
    agent = {"type": "agent"}
    await _alone(scratch, sight, "no_agents", agent, strategy="conformance-nobody-works")
    options = {"reworks_max": 0}
    await _alone(scratch, sight, "rework_exhausted", agent, strategy="conformance-never-good", options=options)


async def _tools_without_end(scratch: Scratch, sight: Sight) -> None:
    """A model that asks for a tool in every answer, also when it is told that there are none any more."""
    scratch.workspace("conformance-endless")
    call = {"tool": "fs", "args": {"read": "/code/nothing"}}
    script = [{"tool_calls": [call]}] * (TOOL_ROUNDS_PER_ATTEMPT_MAX + 1)
    agent = {"type": "agent", "model": "mock", "params": {"mock": {"script": script}}}
    options = {"workspace": "conformance-endless"}
    await _alone(scratch, sight, "tool_limit_exceeded", agent, strategy="none", options=options)


async def _poor_epic(scratch: Scratch, sight: Sight) -> None:
    epic = {"title": "too poor for a call", "epic_id": "conformance-poor", "budget_usd_micros": 1}
    await scratch.ask("planner.epic.create", epic)
    await _alone(scratch, sight, "epic_budget_exceeded", PRICED, epic_id="conformance-poor")


async def _crowd(scratch: Scratch, sight: Sight) -> None:
    """More trials of strategies at once than may wait for their turn."""
    name = "conformance-slow"
    await scratch.ask("planner.strategy.put", {"name": name, "scripts": {"decomposition": SLOW}, "pattern": name})
    trial = {"name": name, "stage": "decomposition"}
    asked = [asyncio.create_task(scratch.ask("planner.strategy.try", trial)) for _ in range(CROWD)]
    try:
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        await sight.refused("mailbox_full", next(iter(done)), f"planner strategy.try, {CROWD} at once")
    finally:
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)


async def _garbage(scratch: Scratch, sight: Sight) -> None:
    """Somebody answers a request verb with what is no reply of htdag."""
    async with serving(scratch.bus, GARBAGE, b"this is no reply"):
        await sight.refused("internal", scratch.bus.call(GARBAGE, {}), "a verb that answers garbage")


RUNS: Final = (
    Scenario(("no_agents", "rework_exhausted"), _strategies),
    Scenario(("tool_limit_exceeded",), _tools_without_end),
    Scenario(("epic_budget_exceeded",), _poor_epic),
    Scenario(("mailbox_full",), _crowd),
    Scenario(("internal",), _garbage),
)
