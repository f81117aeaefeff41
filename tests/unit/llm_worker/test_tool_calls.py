"""Tool calls: one shape in every answer; models without tools of their own are told in words and answer in JSON."""

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from contracts.llm import LlmInput
from contracts.tools import ROLE_TOOLS, describe
from services.llm_worker.providers.anthropic import arguments
from services.llm_worker.providers.described import DescribedTools, in_words
from services.llm_worker.providers.mock import MockProvider
from services.llm_worker.providers.openai import _arguments
from services.llm_worker.providers.protocol import Call, Delta, ToolCalls
from services.llm_worker.tool_calls import MALFORMED, native, normalised, read, schema_of
from tests.unit.llm_worker.support import call, pieces, reason_of, text_of, with_config

TOOLS = describe("coder", ROLE_TOOLS["coder"])
ASKED = {"id": "t1", "name": "fs", "arguments": {"read": "/code/a"}}
NATIVE = {"id": "t1", "type": "function", "function": {"name": "fs", "arguments": '{"read":"/code/a"}'}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": "look"},
    {"role": "assistant", "content": None, "tool_calls": [ASKED, {**ASKED, "id": "t2"}]},
    {"role": "tool", "tool_call_id": "t1", "content": "seen"},
    {"role": "tool", "tool_call_id": "t2", "content": "seen too"},
]


def talking(wanted: Call, messages: list[dict[str, Any]] | None = None) -> Call:
    request = wanted.request
    return wanted._replace(
        request=type(request)(LlmInput(messages or CONVERSATION), "r", "n", "c", "mock", request.params)
    )


def test_answers_show_one_shape_whatever_the_provider_writes():
    assert normalised([NATIVE]) == normalised([ASKED]) == [ASKED]
    assert normalised([{"function": {"name": "fs", "arguments": ""}}]) == [
        {"id": "call_1", "name": "fs", "arguments": {}}
    ]
    assert native(ASKED) == NATIVE
    assert native(NATIVE) == NATIVE


@pytest.mark.parametrize("written", ["{no json", "[1]", '"text"', "\udc80", "[" * 40 + "]" * 40, "[" * 9_000])
def test_arguments_that_are_no_object_are_shown_as_they_came(written: str):
    (found,) = normalised([{"id": "x", "function": {"name": "fs", "arguments": written}}])
    assert found["arguments"] == {MALFORMED: written[:2_000].replace("\udc80", "?")}
    assert msgspec.json.encode(found)


def test_an_id_that_is_made_up_is_nobody_elses():
    given = ["t1", "t1", "", "call_2", "call_3_", "call_3", "t1"]
    found = [one["id"] for one in normalised([{**ASKED, "id": name} for name in given])]
    assert found == ["t1", "call_2_", "call_3__", "call_2", "call_3_", "call_3", "call_7"]


def test_what_is_no_call_at_all_breaks_nothing():
    assert [(one["name"], one["arguments"]) for one in normalised([5, None, {}, {"function": 5}])] == [("", {})] * 4


def test_openai_gets_the_conversation_in_its_own_shape():
    given = _arguments(with_config(talking(call(tools=TOOLS)), provider="openai", model="m"))
    assert given["messages"][2]["tool_calls"] == [NATIVE, {**NATIVE, "id": "t2"}]
    assert given["messages"][3] == CONVERSATION[3]
    assert given["tools"] == TOOLS


def test_anthropic_gets_all_results_of_a_turn_in_one_message():
    given = arguments(with_config(talking(call(tools=TOOLS)), provider="anthropic"))
    assert [turn["role"] for turn in given["messages"]] == ["user", "assistant", "user"]
    assert given["messages"][1]["content"] == [
        {"type": "tool_use", "id": name, "name": "fs", "input": {"read": "/code/a"}} for name in ("t1", "t2")
    ]
    assert given["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": "seen"},
        {"type": "tool_result", "tool_use_id": "t2", "content": "seen too"},
    ]
    assert [tool["name"] for tool in given["tools"]] == list(ROLE_TOOLS["coder"])


# -- scripted mocks --------------------------------------------------------------------------------------------------

SCRIPT = [
    {"tool_calls": [{"tool": "fs", "args": {"read": "/code/a"}, "opts": {"timeout": 5}}, {"tool": "git"}]},
    {"text": "thinking", "tool_calls": [{"tool": "lua", "args": {"src": "return 1"}}]},
    {"text": "all done"},
]


async def test_a_script_says_one_answer_for_each_turn_of_the_conversation():
    mock = MockProvider()
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    said = await pieces(mock, talking(call(mock={"script": SCRIPT}), messages))
    (asked,) = (piece for piece in said if isinstance(piece, ToolCalls))
    assert [(one["name"], one["arguments"]) for one in normalised(asked.calls)] == [
        ("fs", {"read": "/code/a", "opts": {"timeout": 5}}),
        ("git", {}),
    ]
    assert (text_of(said), reason_of(said)) == ("", "tool_calls")
    assert said == await pieces(MockProvider(), talking(call(mock={"script": SCRIPT}), messages))
    messages += [{"role": "assistant", "content": None, "tool_calls": asked.calls}]
    said = await pieces(mock, talking(call(mock={"script": SCRIPT}), messages))
    assert (text_of(said), reason_of(said)) == ("thinking", "tool_calls")
    for _ in range(2):
        messages += [{"role": "assistant", "content": "x"}]
        said = await pieces(mock, talking(call(mock={"script": SCRIPT}), messages))
        assert (text_of(said), reason_of(said)) == ("all done", "stop")


@pytest.mark.parametrize("script", [5, [5], [{"say": "x"}], [{"tool_calls": [{"name": "fs"}]}]])
async def test_a_script_that_cannot_be_read_is_refused(script: Any):
    from tests.unit.llm_worker.support import error_of

    error = await error_of(MockProvider(), call(mock={"script": script}))
    assert (error.code, error.detail["field"]) == ("invalid_request", "mock.script")


# -- models without tools of their own -------------------------------------------------------------------------------


def test_tools_are_told_in_words_and_the_answer_has_a_schema():
    told = in_words(talking(call(tools=TOOLS))).request
    assert told.params.tools is None
    schema = told.params.response_schema
    assert schema is not None
    validator = jsonschema_rs.validator_for(schema)
    for good in ({"final": "x"}, {"tool_calls": [{"name": "fs", "arguments": {"read": "/code/a"}}]}):
        validator.validate(good)
    for bad in ({}, {"tool_calls": []}, {"tool_calls": [{"name": "docker", "arguments": {}}]}):
        assert not validator.is_valid(bad)
    system, user, assistant, one, two = told.input.messages
    assert system["content"].startswith("be short\n\n")
    assert all(name in system["content"] for name in ('"git"', '"shell"', '"fs"', '"lua"', '{"final":'))
    assert user == CONVERSATION[1]
    assert json.loads(assistant["content"])["tool_calls"][0] == ASKED
    assert (one["role"], one["content"], two["role"]) == ("user", "Result of the tool call t1:\nseen", "user")


def test_a_schema_of_the_request_becomes_that_of_the_last_word():
    schema = schema_of(TOOLS, {"type": "object", "required": ["n"]})
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid({"final": {"n": 1}})
    assert not validator.is_valid({"final": "text"})


def test_a_conversation_that_had_tools_goes_on_in_words_without_them():
    told = in_words(talking(call())).request
    assert told.params.response_schema is None
    assert [message["role"] for message in told.input.messages] == ["system", "user", "assistant", "user", "user"]
    plain = call()
    assert in_words(plain) is plain


@pytest.mark.parametrize(
    ("text", "final", "names"),
    [
        ('{"tool_calls":[{"name":"fs","arguments":{"read":"/code/a"}}]}', "", ["fs"]),
        ('```json\n{"tool_calls":[{"name":"fs","arguments":"{}"},{"name":"lua"}]}\n```', "", ["fs", "lua"]),
        ('{"final":"the answer"}', "the answer", []),
        ('Sure! {"final":{"n":1}}', '{"n":1}', []),
        ("plain words", "plain words", []),
        ('{"tool_calls":[]}', '{"tool_calls":[]}', []),
        ('{"tool_calls":[5,{"arguments":{}}],"final":"so"}', "so", []),
        ('{"tool_calls":[{"name":"fs"},{"arguments":{}}]}', "", ["fs", ""]),
        ('{"tool_calls":[{"name":"","arguments":{}}]}', "", [""]),
        ('{"else":1}', '{"else":1}', []),
        ("{" * 3_000, "{" * 3_000, []),
        ("", "", []),
    ],
)
def test_what_cannot_be_read_as_calls_is_the_last_word(text: str, final: str, names: list[str]):
    said, calls = read(text)
    assert (said, [one["function"]["name"] for one in calls]) == (final, names)
    assert len({one["id"] for one in calls}) == len(calls)


async def test_a_model_without_tools_calls_them_all_the_same():
    wanted = '{"tool_calls":[{"name":"fs","arguments":{"read":"/code/a"}}]}'
    said = await pieces(DescribedTools(MockProvider()), call(tools=TOOLS, stream=True, mock={"text": wanted}))
    assert [piece for piece in said if isinstance(piece, Delta)] == []
    (asked,) = (piece for piece in said if isinstance(piece, ToolCalls))
    assert normalised(asked.calls) == [{**ASKED, "id": "call_1"}]
    assert reason_of(said) == "tool_calls"


async def test_its_last_word_is_what_stands_in_the_json():
    mock = DescribedTools(MockProvider())
    said = await pieces(mock, call(tools=TOOLS, mock={"text": '{"final":"the answer"}'}))
    assert (text_of(said), reason_of(said)) == ("the answer", "stop")
    said = await pieces(mock, call(stream=True, mock={"text": "no tools here"}))
    assert len([piece for piece in said if isinstance(piece, Delta)]) == 3


@pytest.mark.parametrize("schema_key", ["parameters", "input_schema"])
def test_a_tool_in_its_short_shape_is_sent_in_the_shape_of_each_dialect(schema_key):
    short = {"name": "search", "description": "finds", schema_key: {"type": "object"}}
    function = {"name": "search", "description": "finds", "parameters": {"type": "object"}}
    to_openai = _arguments(with_config(talking(call(tools=[short])), provider="openai", model="m"))
    assert to_openai["tools"] == [{"type": "function", "function": function}]
    to_anthropic = arguments(with_config(talking(call(tools=[short])), provider="anthropic", model="m"))
    assert to_anthropic["tools"] == [{"name": "search", "description": "finds", "input_schema": {"type": "object"}}]
