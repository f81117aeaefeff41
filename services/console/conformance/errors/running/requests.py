"""Wrong requests, and the code that each must be refused with. None of them changes anything.

What only time, work or failure brings about is made by one run of tasks that all fail, each under its own code.
"""

from typing import Any, Final, NamedTuple

from contracts.limits import GOAL_CHARS_MAX
from contracts.subjects import LLM_LEGACY, LLM_REQUEST_EDGE, rpc, tool_call

NOBODY: Final = "conformance-nobody"
"""An id that nothing has."""


class Wrong(NamedTuple):
    """One wrong request. `body` is JSON data, or bytes that are none."""

    code: str
    subject: str
    body: Any


def _verb(code: str, verb: str, body: Any) -> Wrong:
    service, noun, name = verb.split(".")
    return Wrong(code, rpc(service, noun, name), body)


def _graph(code: str, *tasks: dict[str, Any]) -> Wrong:
    return _verb(code, "executor.run.start", {"tasks": tasks})


def _tool(code: str, role: str, tool: str, args: Any, opts: Any = None, **more: Any) -> Wrong:
    return Wrong(code, tool_call(role, tool), {"args": args, "opts": opts or {}, **more})


def _llm(code: str, model: str, params: dict[str, Any] | None = None, **more: Any) -> Wrong:
    messages = [{"role": "user", "content": "Hello"}]
    return Wrong(code, f"{LLM_REQUEST_EDGE}.{model}", {"input": {"messages": messages}, "params": params or {}, **more})


REQUESTS: Final = (
    _verb("bad_request", "planner.goal.plan", {"goal": 3}),
    _verb("bad_json", "planner.goal.plan", b"this is no JSON"),
    _verb("bad_id", "executor.run.get", {"run_id": "no/id"}),
    _verb("too_large", "planner.goal.plan", {"goal": "x" * (GOAL_CHARS_MAX + 1)}),
    _verb("empty_goal", "planner.goal.plan", {"goal": ""}),
    _graph("unknown_role", {"id": "a", "role": "wizard"}),
    _graph("unknown_node_type", {"id": "a", "node": {"type": "dance"}}),
    _graph("cycle", {"id": "a", "depends_on": ["a"]}),
    _graph("unknown_dependency", {"id": "a", "depends_on": ["b"]}),
    _graph("duplicate_id", {"id": "a"}, {"id": "a"}),
    _graph("forbidden_subject", {"id": "a", "node": {"type": "nats", "subject": "htdag.v1.x"}}),
    _verb("not_found", "llm-worker.llm.replay", {"corr_id": NOBODY, "run_id": NOBODY, "node_id": "a"}),
    _verb("epic_not_found", "planner.epic.get", {"epic_id": NOBODY}),
    _verb("run_not_found", "executor.run.get", {"run_id": NOBODY}),
    _verb("task_not_found", "planner.task.status", {"task_id": NOBODY}),
    _verb("strategy_not_found", "planner.strategy.get", {"name": NOBODY}),
)
CONTAINER: Final = {"image": "hexpm/elixir:1.18", "cmd": ["true"]}
BOUNDED: Final = {"cpu": 1, "mem": "64m"}
CALLS: Final = (
    _tool("bad_args", "coder", "fs", {"read": 3}),
    _tool("bad_timeout", "coder", "fs", {"read": "/code/a"}, {"timeout": -1}),
    _tool("timeout_exceeded", "coder", "fs", {"read": "/code/a"}, {"timeout": 1_000_000_000}),
    _tool("forbidden_tool", "critic", "shell", {"cmd": ["ls"]}),
    _tool("dangerous_git_operation", "coder", "git", {"cmd": ["push", "--force"]}),
    _tool("forbidden_command", "coder", "shell", {"cmd": ["rm", "-rf", "/"]}),
    _tool("forbidden_path", "coder", "fs", {"read": "/etc/passwd"}),
    _tool("write_access_denied", "critic", "fs", {"write": "/code/a", "content": "x"}),
    _tool("forbidden_url", "researcher", "http", {"url": "https://evil.com/"}),
    _tool("docker_resource_limits_required", "tester", "docker", CONTAINER),
    _tool("forbidden_image", "tester", "docker", {**CONTAINER, "image": "evil/image"}, BOUNDED),
    _tool("forbidden_mount", "tester", "docker", {**CONTAINER, "mounts": [{"host": "/etc", "cont": "/etc"}]}, BOUNDED),
    _tool("file_not_found", "coder", "fs", {"read": f"/code/{NOBODY}"}),
    _tool("not_regular_file", "coder", "fs", {"read": "/code"}),
    _tool("workspace_not_found", "coder", "fs", {"read": "/code/a"}, workspace=NOBODY),
)
PEOPLE: Final = (
    _verb("user_not_found", "identity.user.status", {"name": NOBODY}),
    _verb("bad_name", "identity.user.create", {"name": "9 is no name"}),
    _verb("bad_credential", "identity.agent.code", {"credential": f"{NOBODY}.x"}),
    _verb("own_code_only", "identity.agent.code", {"credential": f"{NOBODY}.x", "username": "aka"}),
    _verb("approval_not_found", "identity.approval.show", {"approval_id": NOBODY}),
)
MODELS: Final = (
    Wrong("invalid_request", f"{LLM_REQUEST_EDGE}.mock", {"input": {}}),
    Wrong("missing_param", LLM_LEGACY, {"messages": [{"role": "user", "content": "Hello"}]}),
    _llm("model_mismatch", "mock", model_id="smollm2"),
    _llm("unknown_model", NOBODY),
)
"""Refused before anybody is asked: what a model really answers may use up the limits of others."""
WRONG: Final = (*REQUESTS, *CALLS, *PEOPLE, *MODELS)


def _task(code: str, node: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A task that fails under `code`, which is its id too."""
    return {"id": code, "node": node, "max_attempts": 1, **more}


def _lua(source: str) -> dict[str, Any]:
    return {"type": "lua", "src": source}


GARBLED: Final = "conformance.garbled"
"""Below this somebody answers what is no JSON."""
CHILD: Final = "child"


def failing(garbled: str) -> list[dict[str, Any]]:
    """Tasks of one run, each of which fails under its id. `garbled` is a subject where what is no JSON is answered."""
    priced = {"type": "llm", "model": "mock:price=0.01/call", "prompt": "Hello"}
    return [
        _task("lua_syntax", _lua("return {")),
        _task("lua_error", _lua("error('no')")),
        _task("lua_restricted", _lua("return os.execute('true')")),
        _task("lua_memory", _lua("return string.rep('x', 1024 * 1024 * 1024)")),
        _task("lua_bad_result", _lua("return print")),
        _task("lua_timeout", {**_lua("while true do end"), "timeout_ms": 300}),
        _task("no_responders", {"type": "nats", "subject": "conformance.nobody"}),
        _task("bad_reply", {"type": "nats", "subject": garbled}),
        _task("budget_exceeded", priced, budget_usd_micros=1),
        _task("approval_expired", {"type": "approval", "title": "nobody answers"}, timeout_ms=1_500),
        _task("child_failed", {"type": "group"}),
        _task(CHILD, _lua("error('no')"), parent="child_failed"),
    ]


def failing_codes() -> list[str]:
    """What the tasks of that run fail under."""
    return [str(task["id"]) for task in failing(GARBLED) if task["id"] != CHILD]


def after_run(run_id: str) -> tuple[Wrong, ...]:
    """What is wrong to ask of the run of `failing` when it is over."""

    def call(number: int) -> dict[str, Any]:
        return {"run_id": run_id, "task_id": "lua_error", "attempt": 1, "call": number}

    return (
        _verb("already_finished", "executor.run.cancel", {"run_id": run_id}),
        _verb("not_completed", "planner.task.result", {"run_id": run_id, "task_id": "lua_error"}),
        _tool("stale_attempt", "coder", "fs", {"read": "/code/a"}, task=call(1)),
        _tool("role_mismatch", "critic", "fs", {"read": "/code/a"}, task=call(2)),
    )
