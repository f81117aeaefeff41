"""The shell tool: one program of the table, by its argument list, in the box of its profile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place, ShellPlan
from services.policy_gateway.sandbox.box import Box
from services.policy_gateway.sandbox.guard import guarded
from services.policy_gateway.sandbox.profiles import shell_box
from services.policy_gateway.sandbox.running import DeadlinePassed
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.sandbox.twins import with_twin
from services.policy_gateway.tools.opening import FOLDER, opened
from services.policy_gateway.tools.programs import Programs
from services.policy_gateway.tools.tool import Ticket, Workspace


class ShellTool:
    """Runs `ShellPlan`s. `admin_network` opens the machine's network to the admin's box, and to no other."""

    def __init__(self, sandbox: Sandbox, programs: Programs, *, admin_network: bool = False) -> None:
        self._sandbox = sandbox
        self._programs = programs
        self._admin_network = admin_network

    async def run(self, plan: ShellPlan, ticket: Ticket) -> dict[str, Any]:
        """Return {stdout, stderr, exit, truncated, duration_ms}, with `lossy` and `killed` where they are so."""
        began_s = asyncio.get_running_loop().time()
        await self._sandbox.ready()
        try:
            async with self._guarded(plan, ticket.workspace):
                box, argv = await asyncio.to_thread(self._prepare, plan, ticket.workspace)
                ending = await self._sandbox.run(box, argv, ticket.deadline_s)
        except DeadlinePassed as why:
            raise why.to_rejected(round((ticket.deadline_s - began_s) * 1000)) from None
        return ending.to_value()

    @contextlib.asynccontextmanager
    async def _guarded(self, plan: ShellPlan, workspace: Workspace) -> AsyncIterator[None]:
        """A coder makes no repository by hand."""
        refuse_vanished(workspace)
        if plan.profile != "coder":
            yield
            return
        async with guarded(workspace.code, workspace.name, self._sandbox.state):
            yield

    def _prepare(self, plan: ShellPlan, workspace: Workspace) -> tuple[Box, list[str]]:
        refuse_vanished(workspace)
        refuse_linked(plan.cwd, workspace)
        if plan.profile == "admin" and "/" in plan.program:
            program = self._programs.anything()._replace(argv=(plan.program,))
        else:
            program = self._programs.find(plan.program, workspace)
        box = shell_box(
            plan.profile,
            workspace.code,
            workspace.tmp,
            self._build(workspace),
            plan.cwd,
            network=plan.profile == "admin" and self._admin_network,
            environment=program.environment,
        )
        box = box._replace(binds=(*box.binds, *program.binds))
        if program.twin is not None:
            try:
                box = with_twin(box, program.twin, workspace.tmp, self._sandbox.state)
            except OSError as why:
                raise Rejected("file_error", "the environment's own place cannot be shown", path="/tmp") from why
        return box, [*program.argv, *plan.argv[1:]]

    def _build(self, workspace: Workspace) -> Path:
        return self._sandbox.state / "build" / workspace.name


def refuse_vanished(workspace: Workspace) -> None:
    """A workspace that is not there any more has a code of its own."""
    if not (workspace.code.is_dir() and workspace.tmp.is_dir()):
        raise Rejected("workspace_not_found", workspace=workspace.name)


def refuse_linked(cwd: Place, workspace: Workspace) -> None:
    """A program runs in the folder that was named, or nowhere: no link stands in for it, as with the fs tool."""
    if cwd.root == "host":
        return  # the admin's box has folders of its own there
    try:
        with opened(cwd, workspace, FOLDER):
            return
    except Rejected as why:
        if why.code != "file_not_found":
            raise
        raise Rejected("file_not_found", "there is no such folder to run in", path=cwd.shown) from None
