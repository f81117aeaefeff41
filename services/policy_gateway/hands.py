"""The real tools of a gateway, and what they work with: workspaces, the sandbox, the engine, the Lua children."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.calls.judging import WorkspaceBook
from services.policy_gateway.calls.repeats import Bury, nothing_left
from services.policy_gateway.config import Config
from services.policy_gateway.decision.http import redirected
from services.policy_gateway.decision.plans import (
    DockerPlan,
    FetchPlan,
    GitPlan,
    LuaPlan,
    ReadPlan,
    ShellPlan,
    WritePlan,
)
from services.policy_gateway.proof import Proof, Proven
from services.policy_gateway.sandbox.limits import DEFAULTS
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.toolkit import Toolkit
from services.policy_gateway.tools.docker import Docker
from services.policy_gateway.tools.files import Files
from services.policy_gateway.tools.git import GitTool
from services.policy_gateway.tools.http import Http
from services.policy_gateway.tools.lua import Lua
from services.policy_gateway.tools.programs import Programs
from services.policy_gateway.tools.shadow import Shadow
from services.policy_gateway.tools.shell import ShellTool
from services.policy_gateway.tools.tool import Tool
from services.policy_gateway.turns import Turns
from services.policy_gateway.workspaces import Workspaces
from services.runtime.app import App

DIGEST_CHARS: Final = 16
REAP_EVERY_S: Final = 30.0


class Hands(NamedTuple):
    """What carries allowed calls out: the tools, the workspaces they work in, and the digest of their sandbox.

    `bury` removes what a call of a dead gateway may have left running. Programs in a box die with their gateway;
    containers belong to the engine.
    """

    toolkit: Toolkit
    workspaces: WorkspaceBook
    sandbox: str
    bury: Bury = nothing_left


async def real_hands(app: App, config: Config, value_bytes_max: int) -> Hands:
    """The tools as they are; what they hold is let go when the app stops. No answer is longer than `value_bytes_max`.

    A machine where no sandbox can be built has no shell, git and lua: those calls fail, the others work.
    """
    root = config.workspaces_path(app.home)
    workspaces = Workspaces(root, app.home)
    workspaces.start()
    limits = DEFAULTS._replace(folders_bytes=config.workspace_bytes, folders_entries=config.workspace_files)
    sandbox, programs = Sandbox(app.home / "sandbox", limits=limits, boxes_max=config.calls_heavy), Programs()
    proof = Proof(sandbox, app.log)
    files = Files(sandbox.ledger, limits, value_bytes_max)
    http, docker = Http(redirected), Docker(config.docker_host or None)
    lua = Lua(children=config.lua_children, metrics=app.metrics)
    app.on_stop(_as_hook(files.close))
    app.on_stop(_as_hook(http.close))
    await lua.start()
    app.on_stop(lua.stop)
    tools: dict[type[Any], Tool[Any]] = {
        ReadPlan: files,
        WritePlan: files,
        ShellPlan: Proven(ShellTool(sandbox, programs, admin_network=config.admin_network), proof),
        GitPlan: Proven(GitTool(sandbox, programs, Shadow(sandbox), admin_network=config.admin_network), proof),
        FetchPlan: http,
        DockerPlan: docker,
        LuaPlan: lua,
    }

    async def prove() -> None:
        with suppress(Rejected):
            await proof.require()  # it logs what does not hold

    # Before the first box of our own is built.
    swept = await sandbox.sweep()

    async def reap() -> None:
        """Now, and again and again: a container of a gateway that died is only removed once its deadline is over."""
        removed = swept
        while True:
            try:
                removed += await docker.reap(root)
            except Exception as error:  # the edge: an engine that misbehaves must not stop everybody's calls
                app.log.warning("reap_failed", exc_info=error)
            if removed:
                app.log.warning("leftovers_removed", count=removed, hint="their gateway died in the middle of a call")
            removed = 0
            await asyncio.sleep(REAP_EVERY_S)

    _ = app.spawn(prove(), "prove-sandbox")
    _ = app.spawn(reap(), "reap")
    toolkit = Toolkit(tools, light=config.calls_light, heavy=config.calls_heavy, turns=Turns(app.metrics))
    return Hands(toolkit, workspaces, await _digest(app, sandbox), docker.bury)


async def _digest(app: App, sandbox: Sandbox) -> str:
    """Names the sandbox of this machine in the audit; empty where none can be built."""
    try:
        shape = await sandbox.ready()
    except Rejected as error:
        app.log.warning(error.code, reason=sandbox.why_not, hint=error.kind.hint)
        return ""
    content = repr((shape, sandbox.limits, sorted(sandbox.holders().items()), app.version))
    return sha256(content.encode()).hexdigest()[:DIGEST_CHARS]


def _as_hook(fn: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def hook() -> None:
        fn()

    return hook
