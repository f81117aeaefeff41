"""Several agents in one repository at the same time, with real git: everything that is asked for happens."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.policy_gateway.decision.plans import GitPlan, Place, ShellPlan, WritePlan
from services.policy_gateway.toolkit import Toolkit
from services.policy_gateway.tools.files import Files
from services.policy_gateway.tools.git import GitTool
from services.policy_gateway.tools.programs import Programs
from services.policy_gateway.tools.shell import ShellTool
from services.policy_gateway.tools.tool import Ticket
from tests.attack.ground import CODE, Ground, interpreter

pytestmark = pytest.mark.box

AGENTS = 5
NESTED = (
    "import pathlib\n"
    "hidden = pathlib.Path('/code/inner/.git')\n"
    "for _ in range(2_000):\n"
    "    hidden.mkdir(parents=True); hidden.rmdir(); hidden.parent.rmdir()\n"
)


async def test_agents_that_write_add_and_commit_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.host_git("init", "-q", "-b", "main")
    ground.host_git("commit", "-q", "--allow-empty", "-m", "first")
    programs, files = Programs(names={"python3": interpreter()}), Files()
    toolkit = Toolkit(
        {
            GitPlan: GitTool(ground.sandbox, programs, ground.shadow),
            ShellPlan: ShellTool(ground.sandbox, programs),
            WritePlan: files,
        },
        light=8,
        heavy=8,
    )

    def call(name: str, plan: Any) -> Any:
        ticket = Ticket(name, "coder", ground.workspace, asyncio.get_running_loop().time() + 60)
        return toolkit.run(plan, ticket, 60_000)

    async def works(name: str) -> list[int]:
        await call(name, WritePlan(Place("code", (f"{name}.txt",)), name.encode()))
        added = await call(name, GitPlan(("add", f"{name}.txt"), CODE, False, "git"))
        looked = await call(name, GitPlan(("status", "--short"), CODE, False, "git"))
        done = await call(name, GitPlan(("commit", "-m", name, f"{name}.txt"), CODE, True, "git"))
        return [added["exit"], looked["exit"], done["exit"]]

    building = [call("builder", ShellPlan("python3", ("python3", "-ISc", NESTED), CODE, "coder")) for _ in range(2)]
    *ends, one, two = await asyncio.gather(*(works(f"agent-{number}") for number in range(AGENTS)), *building)
    files.close()
    assert ends == [[0, 0, 0]] * AGENTS
    assert (one["exit"], two["exit"]) == (0, 0)
    subjects = ground.host_git("log", "--format=%s").splitlines()
    assert sorted(subjects) == sorted(["first", *(f"agent-{number}" for number in range(AGENTS))])
