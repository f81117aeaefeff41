"""The git tool: git and nothing but git, on the workspace's own repository, with its history kept safe first."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from services.policy_gateway.decision.plans import GitPlan
from services.policy_gateway.sandbox import nested, repository
from services.policy_gateway.sandbox.box import Bind, Box
from services.policy_gateway.sandbox.output import Output, told
from services.policy_gateway.sandbox.profiles import refuse_sockets_of_the_host, shell_box
from services.policy_gateway.sandbox.running import DeadlinePassed
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.tools.programs import Programs
from services.policy_gateway.tools.shadow import Shadow
from services.policy_gateway.tools.shell import refuse_linked, refuse_vanished
from services.policy_gateway.tools.tool import Ticket

NOT_A_REPOSITORY: Final = 128
OVERRIDES: Final = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.pager": "cat",
    "core.editor": ":",
    "sequence.editor": ":",
    "core.sshCommand": "false",
    "core.askPass": "",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "credential.helper": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "push.gpgSign": "false",
    "log.showSignature": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "diff.ignoreSubmodules": "dirty",
    "safe.bareRepository": "explicit",
    "color.ui": "false",
}
"""Said on the command line, where nothing overrules them. The box's configuration file already names no program."""
FOR_ADMIN: Final = {"protocol.allow": "user", "protocol.ext.allow": "never", "core.sshCommand": "ssh"}
STRICT: Final = "GIT_TEST_ASSUME_DIFFERENT_OWNER"
ENVIRONMENT: Final = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "1",
    "GIT_EDITOR": ":",
    "GIT_PAGER": "cat",
    # Every repository but /code's own belongs to somebody else, and git refuses to follow its configuration: what
    # stands in a folder below may be built by an agent to run programs when git looks into submodules.
    STRICT: "1",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
ONE_REPOSITORY: Final = {"GIT_DIR": "/code/.git", "GIT_COMMON_DIR": "/code/.git", "GIT_WORK_TREE": "/code"}
"""Git looks for no other, wherever it is started."""
DRIVERLESS: Final = frozenset({"diff", "log", "show"})
DRIVERS_OFF: Final = ("--no-ext-diff", "--no-textconv")
ELSEWHERE: Final = frozenset({"clone", "init"})


class GitTool:
    """Runs `GitPlan`s; a call that may move refs first has them fetched into the shadow."""

    def __init__(self, sandbox: Sandbox, programs: Programs, shadow: Shadow, *, admin_network: bool = False) -> None:
        self._sandbox = sandbox
        self._programs = programs
        self._shadow = shadow
        self._admin_network = admin_network

    async def run(self, plan: GitPlan, ticket: Ticket) -> dict[str, Any]:
        """Return {stdout, stderr, exit, truncated, duration_ms}; where /code is no repository, exit is 128."""
        began_s = asyncio.get_running_loop().time()
        await self._sandbox.ready()
        try:
            if plan.writes:
                await self._shadow.keep(ticket.workspace, ticket.deadline_s)
            box, program = await asyncio.to_thread(self._prepare, plan, ticket)
            argv = [program, *command_words(plan)]
            ending = await self._sandbox.run(box, argv, ticket.deadline_s)
        except repository.BadRepository as why:
            said = f"fatal: {why}\n".encode()
            duration_ms = round((asyncio.get_running_loop().time() - began_s) * 1000)
            return told(Output(b"", 0), Output(said, len(said)), NOT_A_REPOSITORY, duration_ms)
        except DeadlinePassed as why:
            raise why.to_rejected(round((ticket.deadline_s - began_s) * 1000)) from None
        return ending.to_value()

    def _prepare(self, plan: GitPlan, ticket: Ticket) -> tuple[Box, str]:
        workspace = ticket.workspace
        refuse_vanished(workspace)
        refuse_linked(plan.cwd, workspace)
        found = repository.find_git()
        guarded = repository.binds(workspace.code, workspace.name, self._sandbox.state, ticket.role)
        if plan.profile != "admin":
            guarded += nested.covers(workspace.code, self._sandbox.state)
        if plan.profile == "admin":
            # Whole system, since any git command may be asked for; the same view of the repository nevertheless.
            box = shell_box(
                "admin",
                workspace.code,
                workspace.tmp,
                self._sandbox.state / "build" / workspace.name,
                plan.cwd,
                network=self._admin_network,
                environment=_environment(plan, network=self._admin_network),
            )
            return box._replace(binds=(*box.binds, *guarded)), str(found)
        refuse_sockets_of_the_host(workspace.code, workspace.tmp)
        binds = (
            Bind(found, str(found)),
            Bind(workspace.code, "/code", writable=True),
            Bind(workspace.tmp, "/tmp", writable=True),
            *guarded,
        )
        return Box(binds, _environment(plan), plan.cwd.shown, programs="none"), str(found)


def command_words(plan: GitPlan) -> list[str]:
    """What follows the name of git: the overrides, then the plan's own words, with drivers off where git lets us."""
    settings = OVERRIDES | (FOR_ADMIN if plan.profile == "admin" else {})
    words = ["--no-pager"]
    for name, value in settings.items():
        words += ["-c", f"{name}={value}"]
    if plan.profile == "admin":
        words += ["-c", "safe.directory=/code"]
    first, *rest = plan.argv
    return [*words, first, *(DRIVERS_OFF if first in DRIVERLESS else ()), *rest]


def _environment(plan: GitPlan, *, network: bool = False) -> Mapping[str, str]:
    """An admin without network may use repositories below /code: nothing there can send anything away."""
    environment = dict(ENVIRONMENT)
    if plan.profile == "admin" and not network:
        del environment[STRICT]
    if plan.profile == "admin" and (plan.argv[0] in ELSEWHERE or plan.argv[0].startswith("-")):
        return environment
    return {**environment, **ONE_REPOSITORY}
