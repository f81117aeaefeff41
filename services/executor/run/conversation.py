"""A conversation with tools: what a model wants called, and how it hears what came of it. Pure.

A conversation is in OpenAI's shape, which every provider's adapter understands.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from contracts.errors import Rejected, failure
from contracts.limits import TOOL_CALLS_PER_ANSWER_MAX, TOOL_RESULT_CHARS_MAX
from contracts.run import LlmAnswered
from contracts.run_tools import ToolAnswered
from services.executor.fence import fenced

CONVERSATION_BYTES_MAX: Final = 768 << 10
"""A request must fit into one event of a broker with the usual largest message of 1 MB."""
FORGOTTEN: Final = "[cut: the conversation is too long; call the tool again if this is still needed]"
NAME_CHARS_MAX: Final = 64
ID_CHARS_MAX: Final = 128
OPTS: Final = "opts"
"""Beside a tool's arguments a model may say options of the call under this name."""
_ENCODE: Final = msgspec.json.Encoder().encode
ANSWER_NOW: Final = "No tool can be called any more. Answer now, in words, with what you know."
Message = dict[str, Any]


class Wanted(NamedTuple):
    """One tool call that an answer asks for. `said` is what stands in the conversation as its arguments."""

    id: str
    tool: str
    args: Any
    opts: Any
    said: Any


def wanted(tool_calls: Sequence[Any], step: str) -> list[Wanted]:
    """What an answer asks for, in its order. Every call gets an id that is its own; `step` names those without."""
    found: list[Wanted] = []
    ids: set[str] = set()
    for place, call in enumerate(tool_calls, 1):
        if not isinstance(call, Mapping):
            continue
        function = call.get("function")
        said = function if isinstance(function, Mapping) else call
        named = call.get("id")
        call_id = (named if isinstance(named, str) and named else f"{step}-{place}").replace(".", "_")[:ID_CHARS_MAX]
        while call_id in ids:
            call_id = f"{call_id}-{place}"
        ids.add(call_id)
        arguments = _arguments(said.get("arguments"))
        args, opts = arguments, {}
        if isinstance(arguments, dict) and OPTS in arguments:
            args = {name: value for name, value in arguments.items() if name != OPTS}
            opts = arguments[OPTS]
        found.append(Wanted(call_id, str(said.get("name", ""))[:NAME_CHARS_MAX], args, opts, arguments))
    return found


def _arguments(said: Any) -> Any:
    """Arguments as JSON data: some models write them as text."""
    if not isinstance(said, str):
        return {} if said is None else said
    try:
        return msgspec.json.decode(said)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return said


def continued(
    messages: Sequence[Message], said: LlmAnswered, calls: Sequence[Wanted], results: Sequence[ToolAnswered]
) -> list[Message]:
    """The conversation with an answer that wanted tools and with what they gave; raises too_large.

    The first calls have `results`, in order; the others were not made, and the model hears that.
    """
    assistant: Message = {
        "role": "assistant",
        "content": said.output or None,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.tool, "arguments": _ENCODE(call.said).decode()},
            }
            for call in calls
        ],
    }
    answers = [
        {"role": "tool", "tool_call_id": call.id, "content": result_text(result)}
        for call, result in zip(calls, results, strict=False)
    ]
    too_many = failure(
        "tool_limit_exceeded", "so many tool calls in one answer are not made", max=TOOL_CALLS_PER_ANSWER_MAX
    )
    answers += [
        {"role": "tool", "tool_call_id": call.id, "content": _ENCODE({"error": too_many}).decode()}
        for call in calls[len(results) :]
    ]
    return fitted([*messages, assistant, *answers])


def without_tools(messages: Sequence[Message]) -> list[Message]:
    """The conversation for a model that has no tools any more, in plain turns, which every provider takes without."""
    found: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            _say(found, f"Result of the tool call {message['tool_call_id']}:\n{message['content']}")
        elif message.get("tool_calls"):
            calls = [call["function"] for call in message["tool_calls"]]
            said = [message["content"]] if message.get("content") else []
            text = "\n".join([*said, _ENCODE({"tool_calls": calls}).decode()])
            found.append({"role": "assistant", "content": text})
        else:
            found.append(message)
    _say(found, ANSWER_NOW)
    return found


def _say(messages: list[Message], text: str) -> None:
    """Say something behind an answer, in the one turn that follows it."""
    last = messages[-1]
    if last["role"] == "user" and isinstance(last["content"], str) and len(messages) > 1:
        messages[-1] = {**last, "content": f"{last['content']}\n\n{text}"}
    else:
        messages.append({"role": "user", "content": text})


def result_text(result: ToolAnswered) -> str:
    """What a tool gave, as a model reads it: fenced, since whatever was read speaks in it."""
    text = _ENCODE({"error": result.error} if result.error is not None else result.value).decode()
    if len(text) <= TOOL_RESULT_CHARS_MAX:
        return fenced(text)
    return fenced(f"{text[:TOOL_RESULT_CHARS_MAX]}\n[… cut: {len(text)} characters in all]")


def fitted(messages: list[Message], bytes_max: int = CONVERSATION_BYTES_MAX) -> list[Message]:
    """The conversation within bounds: results of tools go first, the oldest before the others; raises too_large."""
    total = sum(len(_ENCODE(message)) for message in messages)
    for place, message in enumerate(messages):
        if total <= bytes_max:
            return messages
        if message["role"] == "tool" and len(message["content"]) > len(FORGOTTEN):
            forgotten = {**message, "content": FORGOTTEN}
            total -= len(_ENCODE(message)) - len(_ENCODE(forgotten))
            messages[place] = forgotten
    if total > bytes_max:
        raise Rejected("too_large", "the conversation with the model is too long", max=bytes_max, requested=total)
    return messages
