"""On the scratch instance: tools that cannot do what they may, and calls whose task is another one, or over."""

import asyncio
import socket
from typing import Any, Final

from services.console.conformance.errors.scenario import Scenario, Sight, until
from services.console.conformance.errors.scratch.engine import KNOWN_IMAGE
from services.console.conformance.errors.scratch.instance import Scratch

FILES_TOO_MANY: Final = 1_001
"""One more than the scratch instance lets a workspace hold."""
SLEEPS: Final = "import time\ntime.sleep(60)\n"
SLEEP: Final = {"cmd": ["python", "sleep.py"]}
BOUNDED: Final = {"cpu": 1, "mem": "64m"}
MISSING_IMAGE: Final = "hexpm/elixir:1.18"


async def _files(scratch: Scratch, sight: Sight) -> None:
    (scratch.workspace("conformance-file") / "a").touch()
    below = scratch.tool("coder", "fs", {"write": "/code/a/b", "content": "b"}, workspace="conformance-file")
    await sight.refused("file_error", below, "tool coder.fs below a file")
    full = scratch.workspace("conformance-full")
    for number in range(FILES_TOO_MANY):
        (full / str(number)).touch()
    write = scratch.tool("coder", "fs", {"write": "/code/a", "content": "a"}, workspace="conformance-full")
    await sight.refused("workspace_full", write, "tool coder.fs")


async def _programs(scratch: Scratch, sight: Sight) -> None:
    where = "tool admin.shell"
    nothing = scratch.tool("admin", "shell", {"cmd": ["conformance-nothing"]})
    await sight.refused("program_not_found", nothing, where)
    code = scratch.workspace("conformance-socket")
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(code / "s"))
        outside.listen()
        beside = scratch.tool("admin", "shell", {"cmd": ["true"]}, workspace="conformance-socket")
        await sight.refused("sandbox_unavailable", beside, f"{where} beside a socket of the host")
    run_id = "conformance-program"
    scratch.workspace("conformance-program")
    node = {"type": "tool", "tool": "shell", "args": {"cmd": ["git", "log"]}, "fails_on_exit": True}
    view = await scratch.run(run_id, [{"id": "a", "node": node}], options={"workspace": "conformance-program"})
    sight.error("program_failed", view["tasks"][0].get("error"), f"task a of the run {run_id}")


async def _docker(scratch: Scratch, sight: Sight) -> None:
    def call(image: str) -> Any:
        return scratch.tool("tester", "docker", {"image": image, "cmd": ["true"]}, opts=BOUNDED)

    await sight.refused("image_not_found", call(MISSING_IMAGE), "tool tester.docker")
    await sight.refused("container_refused", call(KNOWN_IMAGE), "tool tester.docker")
    scratch.engine.close()
    await sight.refused("docker_unavailable", call(KNOWN_IMAGE), "tool tester.docker without an engine")


async def _policy(scratch: Scratch, sight: Sight) -> None:
    """A policy that needs a human for the critic, and lets a researcher's task fetch nothing."""
    text = (await scratch.ask("policy-gateway.policy.roles", {}))["text"]
    changed = text.replace("[roles.critic]", "[roles.critic]\napproval = true").replace(
        "calls_max = 60", "calls_max = 0"
    )
    await scratch.ask("policy-gateway.policy.put", {"text": changed})
    read = scratch.tool("critic", "fs", {"read": "/code/a"})
    await sight.refused("approval_required", read, "tool critic.fs under a policy that asks for a human")
    run_id = "conformance-fetch"
    node = {"type": "tool", "tool": "http", "args": {"url": "https://docs.rs/"}}
    view = await scratch.run(run_id, [{"id": "a", "role": "researcher", "node": node}])
    where = f"task a of the run {run_id} under a policy without fetches"
    sight.error("call_limit_exceeded", view["tasks"][0].get("error"), where)


async def _of_tasks(scratch: Scratch, sight: Sight) -> None:
    """Calls in the name of a task that is at work, until it is stopped."""
    run_id = await _asleep(scratch, "conformance-asleep")

    def call(number: int, args: Any = SLEEP) -> Any:
        of = {"run_id": run_id, "task_id": "a", "attempt": 1, "call": number}
        return scratch.tool("coder", "shell", args, task=of)

    where = f"tool coder.shell for task a of the run {run_id}"
    await sight.refused("call_not_requested", call(2), where)
    await sight.refused("conflict", call(1, {"cmd": ["python", "other.py"]}), where)
    same = asyncio.create_task(call(1))
    try:
        await scratch.ask("executor.run.cancel", {"run_id": run_id})
        await sight.refused("call_withdrawn", same, where)
    finally:
        same.cancel()


async def _asleep(scratch: Scratch, run_id: str) -> str:
    """A run whose one task is in the middle of a call."""
    code = scratch.workspace(run_id)
    (code / "pyproject.toml").touch()
    (code / "sleep.py").write_text(SLEEPS, encoding="ascii")
    node = {"type": "tool", "tool": "shell", "args": SLEEP}
    await scratch.ask(
        "executor.run.start",
        {"run_id": run_id, "tasks": [{"id": "a", "node": node}], "options": {"workspace": run_id}},
    )

    async def begun() -> bool:
        waits = await scratch.ask("executor.run.waits", {"run_id": run_id})
        return any(wait["kind"] == "tool:shell" for wait in waits)

    await until(begun)
    return run_id


TOOLS: Final = (
    Scenario(("file_error", "workspace_full"), _files),
    Scenario(("program_not_found", "sandbox_unavailable", "program_failed"), _programs),
    Scenario(("image_not_found", "container_refused", "docker_unavailable"), _docker),
    Scenario(("call_not_requested", "conflict", "call_withdrawn"), _of_tasks),
    Scenario(("approval_required", "call_limit_exceeded"), _policy),
)
