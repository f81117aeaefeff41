"""What a node of each type may say. The executor refuses the same; it is judged here so that the caller hears it."""

from typing import Any

import msgspec

from contracts.errors import Rejected
from contracts.limits import (
    LLM_MESSAGES_MAX,
    LLM_OUTPUT_TOKENS_MAX,
    LLM_TIMEOUT_MAX_MS,
    LUA_SOURCE_MAX_BYTES,
    LUA_TIMEOUT_MAX_MS,
    TASK_TIMEOUT_MAX_MS,
)
from contracts.llm import LlmParams
from contracts.subjects import check_model_id, check_open
from contracts.task import AgentNode, LlmNode, LuaNode, NatsNode, TaskSpec, ToolNode
from contracts.tools import check_tool, check_tools


def accept_node(task: TaskSpec) -> None:
    """Refuse with bad_request, bad_id, too_large or forbidden_subject."""
    node = task.node
    match node:
        case AgentNode():
            if node.model is not None:
                check_model_id(node.model)
            _check_params(task.id, node.params)
            check_tools(node.tools, task.id)
        case ToolNode():
            check_tool(node.tool, task.id)
        case LlmNode():
            _check_llm(task.id, node)
        case LuaNode():
            if len(node.src.encode()) > LUA_SOURCE_MAX_BYTES:
                raise _too_large(task.id, "node.src", LUA_SOURCE_MAX_BYTES)
            _check_bound(task.id, "node.timeout_ms", node.timeout_ms, LUA_TIMEOUT_MAX_MS)
        case NatsNode():
            check_open(node.subject, task.id)
            _check_bound(task.id, "node.timeout_ms", node.timeout_ms, TASK_TIMEOUT_MAX_MS)
        case _:
            return  # noop, approval and group have nothing to be wrong


def _check_llm(task_id: str, node: LlmNode) -> None:
    check_model_id(node.model)
    if (node.prompt is None) == (not node.messages):
        raise _bad(task_id, "node", "give the llm node either prompt or messages")
    if len(node.messages or ()) > LLM_MESSAGES_MAX:
        raise _too_large(task_id, "node.messages", LLM_MESSAGES_MAX)
    _check_params(task_id, node.params)


def _check_params(task_id: str, params: dict[str, Any]) -> None:
    try:
        read = msgspec.convert(params, LlmParams)
    except msgspec.ValidationError as error:
        raise _bad(task_id, "node.params", str(error)) from error
    _check_bound(task_id, "node.params.timeout_ms", read.timeout_ms, LLM_TIMEOUT_MAX_MS)
    _check_bound(task_id, "node.params.max_tokens", read.max_tokens, LLM_OUTPUT_TOKENS_MAX)


def _check_bound(task_id: str, field: str, value: int | None, most: int) -> None:
    if value is not None and not 1 <= value <= most:
        raise Rejected(
            "bad_request",
            f"task {task_id}: {field} must be 1 to {most}",
            task_id=task_id,
            field=field,
            min=1,
            max=most,
            requested=value,
        )


def _bad(task_id: str, field: str, why: str) -> Rejected:
    return Rejected("bad_request", f"task {task_id}: {why}", task_id=task_id, field=field)


def _too_large(task_id: str, field: str, most: int) -> Rejected:
    return Rejected("too_large", f"task {task_id}: {field} is too large", task_id=task_id, field=field, max=most)
