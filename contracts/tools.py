"""The tools of agents: which role is told of which, and how a language model is told of them.

What a role may really do is decided by policy-gateway, call by call; this table only says what is worth offering.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from contracts.errors import Rejected
from contracts.subjects import ID, check_id
from contracts.task import ROLE_ALIASES

TOOLS: Final = ("git", "shell", "fs", "http", "docker", "lua")
UNNAMEABLE: Final = "unnameable"
"""Stands in the subject for a tool whose name cannot: policy-gateway refuses it like any other, and records it."""
NAME_CHARS_MAX: Final = 200
"""So much of a tool's name is sent when it cannot be one."""
ROLE_TOOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "coder": ("git", "shell", "fs", "lua"),
    "tester": ("docker", "shell"),
    "critic": ("fs", "lua"),
    "researcher": ("http", "fs"),
    "architect": ("fs", "lua"),
    "admin": TOOLS,
}
WRITERS: Final = frozenset({"coder", "admin"})
"""Roles whose fs may write."""

ROLE_TIMEOUT_MS_MAX: Final[Mapping[str, int]] = {
    "coder": 300_000,
    "tester": 600_000,
    "critic": 30_000,
    "researcher": 60_000,
    "architect": 60_000,
    "admin": 3_600_000,
}
"""The longest timeout that a role is told of; the policy in force decides (the admin's has no maximum)."""

_OPTS: Final[Mapping[str, Any]] = {"type": "object", "description": "Options of the call.", "properties": {}}
_CMD: Final = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 1,
    "description": "Program and arguments, one word each. No shell reads it: no quotes, pipes or redirections.",
}
_CWD: Final = {"type": "string", "description": "Folder to run in, at or below /code or /tmp; /code when left out."}
_FILE: Final = {"type": "string", "description": "Absolute path below /code or /tmp."}


def _shape(required: Iterable[str], **properties: Any) -> dict[str, Any]:
    """A JSON schema of arguments; options ride along under `opts`."""
    return {"type": "object", "properties": {"opts": _OPTS, **properties}, "required": list(required)}


_LIMITS: Final = {
    "type": "object",
    "description": "Limits of the container: cpu and mem are needed.",
    "properties": {
        "cpu": {"type": "number", "description": "Processors, for example 2."},
        "mem": {"type": "string", "description": "Memory, for example 2g."},
    },
}
_MOUNT: Final = {
    "type": "object",
    "properties": {
        "host": {"type": "string", "description": "/code or a folder below it."},
        "cont": {"type": "string", "description": "Where it stands in the container."},
        "ro": {"type": "boolean", "description": "True: mounts are read-only."},
    },
    "required": ["host", "cont", "ro"],
}
_READ: Final = _shape(("read",), read=_FILE)
_SHAPES: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "git": (
        "Run git in /code; cmd begins with the subcommand. Gives stdout, stderr and exit.",
        _shape(("cmd",), cmd=_CMD, cwd=_CWD),
    ),
    "shell": (
        "Run one program in a sandbox without network. Gives stdout, stderr and exit.",
        _shape(("cmd",), cmd=_CMD, cwd=_CWD),
    ),
    "fs": (
        "Read a text file, or write one whole: give read, or write with content.",
        _shape((), read=_FILE, write=_FILE, content={"type": "string", "description": "What the file is to hold."}),
    ),
    "http": (
        "Fetch a page of an allowed host by https. Gives status, headers and body.",
        _shape(
            ("url",),
            url={"type": "string"},
            method={"type": "string", "enum": ["GET", "HEAD"]},
            headers={"type": "object"},
        ),
    ),
    "docker": (
        "Run a command in a fresh container without network. Gives stdout, stderr and exit.",
        _shape(
            ("image", "cmd", "opts"),
            opts=_LIMITS,
            image={"type": "string"},
            cmd=_CMD,
            working_dir={"type": "string"},
            mounts={"type": "array", "items": _MOUNT},
        ),
    ),
    "lua": (
        "Run a Lua script without files and network; what it returns, or what its main(...) returns, is the result.",
        _shape(("src",), src={"type": "string"}, argv={"type": "array", "description": "Arguments of main."}),
    ),
}


def role_of(name: str) -> str:
    """The role whose rights a role name of a task has."""
    return ROLE_ALIASES.get(name, name)


def tools_of(role: str) -> tuple[str, ...]:
    """The tools that agents of a role are offered."""
    return ROLE_TOOLS.get(role_of(role), ())


def only_reads(tool: str, args: Any) -> bool:
    """Whether a call surely changes nothing, so that it may run beside others like it, and again."""
    if not isinstance(args, Mapping):
        return False
    if tool == "fs":
        return "read" in args and "write" not in args
    if tool == "http":
        return args.get("method", "GET") in ("GET", "HEAD")
    return tool == "lua"


def describe(role: str, tools: Iterable[str]) -> list[dict[str, Any]]:
    """The tools as a model is told of them: functions with a JSON schema, in OpenAI's shape."""
    found = []
    for name in tools:
        text, shape = _SHAPES[name]
        if name == "fs" and role_of(role) not in WRITERS:
            text, shape = "Read a text file.", _READ
        parameters = _with_timeout(shape, role_of(role))
        found.append({"type": "function", "function": {"name": name, "description": text, "parameters": parameters}})
    return found


def _with_timeout(shape: Mapping[str, Any], role: str) -> dict[str, Any]:
    """The schema with the role's own longest timeout: who is not told of it asks for more and is refused."""
    longest = ROLE_TIMEOUT_MS_MAX.get(role, min(ROLE_TIMEOUT_MS_MAX.values()))
    text = f"Milliseconds the call may take, {longest} at most; leave it out to have them all."
    timeout = {"type": "integer", "minimum": 1, "maximum": longest, "description": text}
    opts = shape["properties"]["opts"]
    told = {**opts, "properties": {"timeout": timeout, **opts["properties"]}}
    return {**shape, "properties": {**shape["properties"], "opts": told}}


def check_tool(name: str, task_id: str) -> None:
    """Refuse what cannot be a tool at all. Whether a role has it is for policy-gateway to say."""
    try:
        check_id(name, "tool")
    except Rejected as error:
        raise Rejected("bad_request", "the tool's name is malformed", field="node.tool", task_id=task_id) from error


def check_tools(names: Iterable[str] | None, task_id: str) -> None:
    """Refuse a list of tools for agents that names one nobody could describe to them."""
    for name in names or ():
        if name not in TOOLS:
            raise Rejected(
                "bad_request",
                f"there is no tool {str(name)[:64]}",
                field="node.tools",
                task_id=task_id,
                known=list(TOOLS),
            )


def as_sent(tool: str, args: Any) -> tuple[str, Any]:
    """The tool in the subject of a call, and its arguments. What no subject can name is refused where every call is."""
    return (tool, args) if ID.match(tool) else (UNNAMEABLE, {"tool": tool[:NAME_CHARS_MAX], "args": args})
