"""`decide`: whether a call is allowed, and what exactly it then does. Pure, total and quick.

Order: role known, role bound, tool in the role's list and in the task's, writes of roles that only read, timeout,
rules of the tool, arguments, approval. What is not permitted is refused; a key or option that nobody knows is refused
too.
"""

from typing import Any

from contracts.limits import LUA_TIMEOUT_MAX_MS
from services.policy_gateway.decision.argv import command
from services.policy_gateway.decision.docker import docker
from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.fs import denied_write, fs
from services.policy_gateway.decision.git import git
from services.policy_gateway.decision.http import http
from services.policy_gateway.decision.lua import lua
from services.policy_gateway.decision.options import claimed_role, limits, timeout
from services.policy_gateway.decision.paths import CODE, working_folder
from services.policy_gateway.decision.plans import GitPlan, Plan, ShellPlan
from services.policy_gateway.decision.roles import Rights, Roles
from services.policy_gateway.decision.shape import bad_args, shown, table_of, unknown_key
from services.policy_gateway.decision.shell import shell
from services.policy_gateway.decision.verdict import Allow, Deny, Verdict

__all__ = ["Facts", "decide"]

_NOWHERE = Facts()
_COMMAND = frozenset({"cmd", "cwd"})
_NO_ARGS: dict[str, Any] = {}


def decide(roles: Roles, role: Any, tool: Any, args: Any, opts: Any, facts: Facts = _NOWHERE) -> Verdict:
    """Judge one call. `args` and `opts` may be any object; only plain JSON data is ever looked into."""
    rights = roles.rights.get(role) if type(role) is str else None
    if rights is None:
        return Deny("unknown_role", "role.known", {"role": shown(role)})
    options = table_of(opts)
    mismatch = _mismatch(roles, rights, options, facts)
    if mismatch is not None:
        return mismatch
    if type(tool) is not str or tool not in rights.tools:
        return Deny("forbidden_tool", "role.tools", {"tool": shown(tool), "role": rights.name})
    if facts.bound_tools is not None and tool not in facts.bound_tools:
        return Deny("forbidden_tool", "task.tools", {"tool": tool, "tools": sorted(facts.bound_tools)})
    given = table_of(args)
    if tool == "fs":
        denied = denied_write(rights, given)
        if denied is not None:
            return denied
    timeout_ms = timeout(rights, options)
    if isinstance(timeout_ms, Deny):
        return timeout_ms
    if options is None and opts is not None:
        return bad_args("opts", "an object")
    if given is None:
        return bad_args("args", "an object")
    plan = _plan(rights, tool, given, options, facts)
    if isinstance(plan, Deny):
        return plan
    if rights.approval and not facts.approved:
        return Deny("approval_required", "role.approval", {"role": rights.name})
    if tool == "lua":
        timeout_ms = min(timeout_ms, LUA_TIMEOUT_MAX_MS)  # asked for is one thing; a script that loops is stopped
    return Allow(f"{rights.name}.{tool}", plan, timeout_ms)


def _mismatch(roles: Roles, rights: Rights, opts: dict[str, Any] | None, facts: Facts) -> Deny | None:
    if facts.bound_role is not None:
        bound = roles.rights.get(facts.bound_role)
        if bound is None or bound.name != rights.name:
            return Deny("role_mismatch", "role.bound", {"bound": shown(facts.bound_role), "claimed": rights.name})
    for claim in claimed_role(opts):
        claimed = roles.rights.get(claim) if type(claim) is str else None
        if claimed is None or claimed.name != rights.name:
            return Deny("role_mismatch", "role.bound", {"bound": rights.name, "claimed": shown(claim)})
    return None


def _plan(rights: Rights, tool: str, args: dict[str, Any], opts: dict[str, Any] | None, facts: Facts) -> Plan | Deny:
    if tool == "docker":
        asked = limits(rights, opts, args, facts.mem_bytes_max)
        return asked if isinstance(asked, Deny) else docker(rights, args, asked, facts)
    plan: Plan | Deny
    match tool:
        case "git" | "shell":
            plan = _run(rights, tool, args, facts)
        case "fs":
            plan = fs(rights, args)
        case "http":
            plan = http(rights, args, facts)
        case "lua":
            plan = lua(args)
        case _:
            return Deny("forbidden_tool", "role.tools", {"tool": shown(tool), "role": rights.name})
    if isinstance(plan, Deny) or not opts:
        return plan
    asked = limits(rights, opts, _NO_ARGS, facts.mem_bytes_max)
    if isinstance(asked, Deny):
        return asked
    if tool == "http" and asked.net == "deny":
        return bad_args("opts.net", "a request without a network is none")
    return plan


def _run(rights: Rights, tool: str, args: dict[str, Any], facts: Facts) -> ShellPlan | GitPlan | Deny:
    words = command(args.get("cmd"))
    if isinstance(words, Deny):
        return words
    if tool == "shell":
        plan = shell(rights, facts.profile, words, CODE)
    else:
        plan = GitPlan(tuple(words), CODE, True, "admin") if rights.git_any else git(words, CODE)
    if isinstance(plan, Deny):
        return plan
    if "cwd" in args:
        cwd = working_folder(args["cwd"], rights.roots)
        if isinstance(cwd, Deny):
            return cwd
        plan = plan._replace(cwd=cwd)
    return unknown_key(args, _COMMAND) or plan
