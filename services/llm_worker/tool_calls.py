"""Tool calls in their three shapes: as answers show them, as OpenAI writes them, and as plain JSON text. Pure.

An answer shows `{"id", "name", "arguments": {…}}`, whatever its provider writes. A conversation may hold either that or
OpenAI's shape. A model without tools of its own is told in words what there is, and says in JSON what it wants.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import TOOL_CALLS_PER_ANSWER_MAX
from services.runtime.intake import deeper_than

ARGUMENTS_DEPTH_MAX: Final = 32
"""Deeper ones would not fit into the messages and events that carry them on."""
MALFORMED: Final = "malformed"
MALFORMED_CHARS_MAX: Final = 2_000
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder().decode
Calls = list[dict[str, Any]]


def normalised(calls: Sequence[Any]) -> Calls:
    """Tool calls as answers show them. Arguments that are no JSON object stand under `malformed`, as they came."""
    found: Calls = []
    for call in calls:
        name, arguments = _said(call)
        found.append({"id": whole(_id_of(call)), "name": name, "arguments": _object(arguments)})
    return with_own_ids(found)


def with_own_ids(calls: Calls) -> Calls:
    """The calls, each under an id that no other has: where it has none, or another's, it is told by its place."""
    given = {call["id"] for call in calls}
    seen: set[str] = set()
    found: Calls = []
    for place, call in enumerate(calls, 1):
        own = call["id"]
        if not own or own in seen:
            own = f"call_{place}"
            while own in given:
                own += "_"
            given.add(own)
        seen.add(own)
        found.append({**call, "id": own})
    return found


def check_named(calls: Sequence[Any]) -> None:
    """Refuse calls of which one says no tool: nobody could make it, and no provider takes it back in a conversation.

    Raises Rejected("provider_malformed").
    """
    for place, call in enumerate(calls, 1):
        if not _said(call)[0].strip():
            raise Rejected("provider_malformed", "a tool call does not say which tool", call=place)


def native(call: Any) -> dict[str, Any]:
    """One tool call of a conversation in OpenAI's shape: arguments are JSON text."""
    name, arguments = _said(call)
    text = arguments if isinstance(arguments, str) else _ENCODE({} if arguments is None else arguments).decode()
    return {"id": _id_of(call), "type": "function", "function": {"name": name, "arguments": text}}


def native_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in OpenAI's shape, from that or from its short one: `{"name", "description", "parameters"}`."""
    function = dict(tool.get("function", tool))
    if "input_schema" in function:
        function["parameters"] = function.pop("input_schema")
    return {"type": "function", "function": function}


def conversation(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with every tool call in OpenAI's shape."""
    return [
        {**message, "tool_calls": [native(call) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _id_of(call: Any) -> str:
    return str((call.get("id") if isinstance(call, Mapping) else None) or "")


def _said(call: Any) -> tuple[str, Any]:
    if not isinstance(call, Mapping):
        return "", None
    function = call.get("function")
    said = function if isinstance(function, Mapping) else call
    return whole(str(said.get("name") or "")), said.get("arguments")


def _object(arguments: Any) -> dict[str, Any]:
    if arguments is None or arguments == "":
        return {}
    text = arguments if isinstance(arguments, str) else _ENCODE(arguments).decode()
    try:
        if not deeper_than(text.encode(), ARGUMENTS_DEPTH_MAX):
            given = _DECODE(text)
            if isinstance(given, dict):
                return given
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass  # a model may write anything: it is shown what it wrote
    return {MALFORMED: whole(text[:MALFORMED_CHARS_MAX])}


def whole(text: str) -> str:
    """The text without halves of characters, which no JSON could carry on."""
    return text if text.isascii() else text.encode(errors="replace").decode()


# -- models without tools of their own -------------------------------------------------------------------------------


def described(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation in words: which tools there are and how to call them, calls as JSON, results as texts."""
    told = [_function(tool) for tool in tools]
    rules = (
        "You can call these tools, each described by a JSON schema of its arguments:\n"
        + "\n".join(json.dumps(tool, ensure_ascii=False) for tool in told)
        + "\nAnswer with one JSON object and nothing else. To call tools: "
        '{"tool_calls":[{"name":"…","arguments":{…}}]}. When you are done: {"final":"your answer"}.'
    )
    turns = spoken(messages)
    if turns and turns[0].get("role") == "system" and isinstance(turns[0].get("content"), str):
        return [{"role": "system", "content": f"{turns[0]['content']}\n\n{rules}"}, *turns[1:]]
    return [{"role": "system", "content": rules}, *turns]


def spoken(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with calls as JSON and results as texts."""
    return [_in_words(message) for message in messages]


def _in_words(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("role") == "tool":
        named = message.get("tool_call_id", "")
        return {"role": "user", "content": f"Result of the tool call {named}:\n{message.get('content')}"}
    if isinstance(message.get("tool_calls"), list):
        calls = normalised(message["tool_calls"])
        return {"role": "assistant", "content": _ENCODE({"tool_calls": calls}).decode()}
    return message


def schema_of(tools: Sequence[dict[str, Any]], final: dict[str, Any] | None) -> dict[str, Any]:
    """What such an answer must look like. `final` is the schema of the last word; it is text when there is none."""
    choices = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["name"]},
                "arguments": tool.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
        }
        for tool in map(_function, tools)
    ]
    calls = {"type": "array", "items": {"anyOf": choices}, "minItems": 1, "maxItems": TOOL_CALLS_PER_ANSWER_MAX}
    return {
        "anyOf": [
            {"type": "object", "properties": {"tool_calls": calls}, "required": ["tool_calls"]},
            {"type": "object", "properties": {"final": final or {"type": "string"}}, "required": ["final"]},
        ]
    }


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    found = dict(function) if isinstance(function, Mapping) else dict(tool)
    return {**found, "name": str(found.get("name") or "")}


def read(text: str) -> tuple[str, Calls]:
    """What such an answer says: a last word, or tool calls in OpenAI's shape. What is neither is a last word too.

    The calls are as they came: one that names no tool is among them, as with every other provider.
    """
    said = _json_in(text)
    if not isinstance(said, dict):
        return text, []
    listed = said.get("tool_calls")
    if isinstance(listed, list):
        calls = [native(call) for call in listed]
        # Without a last word beside them they are calls even if none says which tool, and are refused as such.
        if any(call["function"]["name"] for call in calls) or (calls and "final" not in said):
            return "", with_own_ids(calls)
    if "final" in said:
        final = said["final"]
        return final if isinstance(final, str) else _ENCODE(final).decode(), []
    return text, []


def _json_in(text: str) -> Any:
    """The JSON object in a text: small models wrap it into fences and words."""
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            if candidate.strip() and not deeper_than(candidate.encode(), ARGUMENTS_DEPTH_MAX * 2):
                return _DECODE(candidate)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            continue
    return None
