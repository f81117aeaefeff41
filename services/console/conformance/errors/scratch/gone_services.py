"""On the scratch instance, at its end: services that go, in the middle of a call and before one."""

import asyncio
from typing import Final

from contracts.subjects import LLM_REQUEST_EDGE
from services.console.conformance.errors.scenario import Scenario, Sight, until
from services.console.conformance.errors.scratch.instance import ANSWER_S, Scratch
from services.console.conformance.errors.scratch.tools import SLEEP, SLEEPS
from services.console.model_edge import ask_model


async def _interrupted(scratch: Scratch, sight: Sight) -> None:
    """The gateway ends in the middle of a call."""
    code = scratch.workspace("conformance-interrupted")
    (code / "pyproject.toml").touch()
    (code / "sleep.py").write_text(SLEEPS, encoding="ascii")
    call = asyncio.create_task(scratch.tool("coder", "shell", SLEEP, workspace="conformance-interrupted"))
    try:
        await until(lambda: _claimed(scratch))
        await scratch.fleet.stop_one("policy-gateway")
        await sight.refused("call_interrupted", call, "tool coder.shell of a gateway that is stopped")
    finally:
        call.cancel()


async def _claimed(scratch: Scratch) -> bool:
    """Whether the call stands in the audit: then it was allowed, and goes on."""
    rows = await scratch.ask("policy-gateway.policy.audit", {"limit": 1})
    return bool(rows and rows[0]["args"] == SLEEP)


async def _gone(scratch: Scratch, sight: Sight) -> None:
    await scratch.fleet.stop_one("planner")
    await sight.refused(
        "service_unavailable", scratch.ask("planner.epic.list", {}), "planner epic.list without planner"
    )
    await scratch.fleet.stop_one("llm-worker")
    asked = {"input": {"messages": [{"role": "user", "content": "Hello"}]}}
    answer = ask_model(scratch.bus, "mock", asked, timeout_s=ANSWER_S)
    await sight.refused("llm_unavailable", answer, f"{LLM_REQUEST_EDGE}.mock without llm-worker")


GONE_SERVICES: Final = (
    Scenario(("call_interrupted",), _interrupted),
    Scenario(("service_unavailable", "llm_unavailable"), _gone),
)
