"""Tasks as people and strategies describe them, and the states they go through."""

from typing import Any, Final, Literal, get_args

import msgspec

ROLES: Final = ("coder", "tester", "critic", "researcher", "architect", "admin")
ADMIN: Final = "admin"
"""The role whose calls need a human."""
TESTER: Final = "tester"
"""The role whose work is a verdict."""
ROLE_ALIASES: Final = {
    "project_manager": "architect",
    "architecture_analyst": "architect",
    "code_developer": "coder",
    "quality_engineer": "tester",
    "security_analyst": "critic",
}
"""Role names that Lua strategies use, and the role whose rights they have."""

TaskState = Literal["pending", "in_progress", "waiting_approval", "blocked", "completed", "failed", "cancelled"]
RunState = Literal["running", "interrupted", "completed", "failed", "cancelled"]
TASK_STATES_FINAL: Final = frozenset({"blocked", "completed", "failed", "cancelled"})
RUN_STATES_FINAL: Final = frozenset({"completed", "failed", "cancelled"})

TaskType = Literal["goal", "milestone", "implementation"]


class AgentNode(msgspec.Struct, frozen=True, omit_defaults=True, tag="agent"):
    """Carried out by the agents that the strategy spawns, or by the fallback when no strategy matches.

    `model` overrides the strategy's choice; `params` (temperature, max_tokens, …) overrides its parameters.
    `tools` names the only tools they may call, [] is none; None is all that the task's role has when the run has a
    workspace, else none.
    """

    model: str | None = None
    params: dict[str, Any] = {}
    tools: list[str] | None = None


class LlmNode(msgspec.Struct, frozen=True, omit_defaults=True, tag="llm"):
    """One LLM call: either `prompt` or `messages`. Results of dependencies are appended unless `bare`."""

    model: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    params: dict[str, Any] = {}
    bare: bool = False


class LuaNode(msgspec.Struct, frozen=True, omit_defaults=True, tag="lua"):
    """A Lua script in the sandbox. Global `context` holds task, results and input; its return value is the result."""

    src: str
    argv: list[Any] = []
    timeout_ms: int | None = None


class NoopNode(msgspec.Struct, frozen=True, omit_defaults=True, tag="noop"):
    """Does nothing and completes with `result`."""

    result: Any = None


class NatsNode(msgspec.Struct, frozen=True, omit_defaults=True, tag="nats"):
    """One request (or, with mode "publish", one message) to a NATS subject outside htdag; the JSON reply is the result.

    The message carries `Nats-Msg-Id: <run>/<task>/<attempt>`, the same after a crash: a responder can deduplicate.
    """

    subject: str
    payload: Any = None
    mode: Literal["request", "publish"] = "request"
    timeout_ms: int | None = None


class ToolNode(msgspec.Struct, frozen=True, omit_defaults=True, tag="tool"):
    """One call of one tool of the task's role, in the run's workspace; its value is the result.

    What the policy denies fails the task at once. `fails_on_exit` says whether a program that ends with another exit
    code than 0 fails the task; without it, a tester's does (its exit is the verdict), and others' exit is a result.
    """

    tool: str
    args: dict[str, Any] = {}
    opts: dict[str, Any] = {}
    fails_on_exit: bool | None = None


class ApprovalNode(msgspec.Struct, frozen=True, omit_defaults=True, tag="approval"):
    """Waits until a human releases it by a fresh code; `action` is what they are shown beside the task.

    The task's `timeout_ms` is that of the gate, its `approvers` are who may answer. The result is
    `{approved_by, at, step}`.
    """

    title: str = ""
    action: Any = None


class GroupNode(msgspec.Struct, frozen=True, omit_defaults=True, tag="group"):
    """A decomposed task: it ends when its children have ended."""

    strategy: str = ""
    reasoning: str = ""


Node = AgentNode | LlmNode | LuaNode | NoopNode | NatsNode | ToolNode | ApprovalNode | GroupNode
NODE_TYPES: Final = tuple(str(kind.__struct_config__.tag) for kind in get_args(Node))


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task of a graph, as enqueued, planned or stored.

    `id` is unique in its run; `depends_on` and `parent` name tasks of the same run. `priority` counts downwards:
    1 is chosen before 2. `timeout_ms` bounds one attempt. Where a human must release it, `approvers` names those who
    may; empty means every human.
    """

    id: str
    title: str = ""
    description: str = ""
    role: str = "coder"
    depends_on: list[str] = []
    context: dict[str, Any] = {}
    priority: int = 5
    estimated_complexity: float = 5.0
    task_type: TaskType = "implementation"
    sparc_phase: str | None = None
    acceptance_criteria: list[str] = []
    timeout_ms: int | None = None
    max_attempts: int = 3
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None
    node: Node = AgentNode()
    parent: str | None = None
    depth: int = 0
    approvers: list[str] = []
