"""What a run says and hears of tools: one call of one tool of a task's role, asked for before it happens.

`call` counts the tool calls of an attempt from 1: run, task, attempt and call together name one effect, for ever.
"""

from typing import Any

import msgspec


class TakeToolResult(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.tool.v1"):
    """What one tool call gave. Exactly one of `value` and `error` counts; `truncated` says that `value` was cut."""

    task_id: str
    attempt: int
    call: int
    value: Any = None
    error: dict[str, Any] | None = None
    truncated: bool = False
    duration_ms: float = 0.0


class ToolRequested(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tool.requested.v1"):
    """A tool call was decided; it is sent as it stands here, also after a crash.

    `step` is the step whose answer wants it, or `body` for a node of type tool. `tool_call_id` is the model's name
    for it. `barred`: the task does not have this tool; it is only asked for so that the audit sees the refusal.
    """

    task_id: str
    attempt: int
    step: str
    call: int
    tool: str
    args: Any
    deadline_at_ms: int
    opts: Any = {}
    tool_call_id: str = ""
    barred: bool = False


class ToolAnswered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tool.answered.v1"):
    """What a tool call gave: a value, or an error; a denial by policy is an error of class `policy_violation`."""

    task_id: str
    attempt: int
    call: int
    value: Any = None
    error: dict[str, Any] | None = None
    truncated: bool = False
    duration_ms: float = 0.0
