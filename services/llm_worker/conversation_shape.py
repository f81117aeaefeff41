"""The shape of what a caller sends along: messages and tools. Pure.

It is judged before anybody is asked, alike for every provider: some servers call a wrong message a failure of their
own, which would count against a model that is well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from contracts.errors import Rejected
from contracts.limits import LLM_MESSAGES_MAX

_TEXTS: Final = ("name", "tool_call_id")


def check_messages(messages: Sequence[dict[str, Any]]) -> None:
    """Raise Rejected("invalid_request") naming the first field of a conversation that no provider could take."""
    if not messages:
        raise invalid("input.messages", "messages is empty")
    if len(messages) > LLM_MESSAGES_MAX:
        raise invalid("input.messages", "too many messages", max=LLM_MESSAGES_MAX, got=len(messages))
    for index, message in enumerate(messages):
        _check_message(f"input.messages[{index}]", message)


def check_tools(tools: Sequence[dict[str, Any]]) -> None:
    """Raise Rejected("invalid_request") for a tool without a name, or with something else than a schema."""
    for index, tool in enumerate(tools):
        field, function = f"params.tools[{index}]", tool.get("function", tool)
        if not isinstance(function, Mapping):
            raise invalid(field, "function is an object")
        if not isinstance(function.get("name"), str) or not function["name"].strip():
            raise invalid(field, "a tool needs a name")
        schema = function.get("parameters", function.get("input_schema"))
        if schema is not None and not isinstance(schema, Mapping):
            raise invalid(field, "parameters is a JSON schema")


def invalid(field: str, message: str, **detail: Any) -> Rejected:
    """A refusal that names the field."""
    return Rejected("invalid_request", message, field=field, **detail)


def _check_message(field: str, message: Mapping[str, Any]) -> None:
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise invalid(f"{field}.role", "a message needs a role")
    for name in _TEXTS:
        if not isinstance(message.get(name) or "", str):
            raise invalid(f"{field}.{name}", f"{name} is a text")
    calls, content = message.get("tool_calls"), message.get("content")
    if calls is not None and not _are_calls(calls):
        raise invalid(f"{field}.tool_calls", "tool_calls is a list of objects, each with the name of its tool")
    if isinstance(content, list) and not all(isinstance(part, Mapping) for part in content):
        raise invalid(f"{field}.content", "the parts of a content are objects")
    if not isinstance(content, str | list) and not (content is None and calls):
        raise invalid(f"{field}.content", "a message needs content: text or a list of parts")


def _are_calls(calls: Any) -> bool:
    return isinstance(calls, list) and all(isinstance(call, Mapping) and _is_named(call) for call in calls)


def _is_named(call: Mapping[str, Any]) -> bool:
    said = call.get("function", call)
    return isinstance(said, Mapping) and isinstance(said.get("name"), str) and isinstance(call.get("id") or "", str)
