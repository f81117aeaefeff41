"""The OpenAI and Anthropic adapters against a real model on loopback, and against servers that misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from contracts.llm import LlmInput
from services.llm_worker.config import Config
from services.llm_worker.listening import Heard
from services.llm_worker.providers.anthropic import AnthropicProvider, arguments
from services.llm_worker.providers.embedded import EmbeddedProvider
from services.llm_worker.providers.openai import OpenAiProvider
from services.llm_worker.providers.protocol import Call, Delta, Piece, TokensUsed, ToolCalls
from tests.support.nats_server import free_port
from tests.unit.llm_worker.http_provider import answering, events
from tests.unit.llm_worker.support import call, error_of, model_of, pieces, reason_of, text_of, usage_of, with_config

# Both SDKs leave sockets of a broken stream to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

STATUS_CODES = [
    (401, "provider_auth"),
    (403, "provider_auth"),
    (404, "provider_rejected"),
    (400, "provider_rejected"),
    (408, "timeout"),
    (429, "provider_overloaded"),
    (529, "provider_overloaded"),
    (500, "provider_error"),
    (502, "provider_error"),
]


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedProvider]:
    provider = EmbeddedProvider(Config(embedded_context_tokens=1024))
    yield provider
    await provider.close()


@pytest.fixture
async def openai() -> AsyncIterator[OpenAiProvider]:
    provider = OpenAiProvider(lambda _: "sk-secret-12345678")
    yield provider
    await provider.close()


@pytest.fixture
async def anthropic() -> AsyncIterator[AnthropicProvider]:
    provider = AnthropicProvider(lambda _: "sk-secret-12345678")
    yield provider
    await provider.close()


def at(url: str, kind: str = "openai", **params) -> Call:
    return with_config(call(**params), provider=kind, model="m", base_url=url)


PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
SOUND = [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]
NO_TEXT = [{"type": "text", "text": 5}]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("content", [PICTURE, SOUND, NO_TEXT], ids=["picture", "sound", "no text"])
async def test_what_the_embedded_model_cannot_take_is_no_failure_of_its_own(embedded, content):
    asked = call("smollm2", max_tokens=4)
    messages = [{"role": "user", "content": content}]
    request = replace(asked.request, input=LlmInput(messages))
    assert (await error_of(embedded, asked._replace(request=request))).code == "provider_rejected"


async def test_a_mark_at_the_beginning_of_a_stream_loses_nothing(openai):
    mark = "\ufeff"
    said = events(chunk({"content": "all"}), chunk({"content": " of it"}, "stop"), "[DONE]")
    async with answering(200, mark + said, kind="text/event-stream") as url:
        assert text_of(await pieces(openai, at(url))) == "all of it"


@pytest.mark.timeout(120)
async def test_the_embedded_model_streams_counts_obeys_a_schema_and_lets_go(embedded):
    said = await pieces(embedded, call("smollm2", "List three colours", max_tokens=8, temperature=0.0))
    assert len([piece for piece in said if isinstance(piece, Delta)]) > 2
    assert usage_of(said).completion_tokens == 8
    assert reason_of(said) == "length"
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    structured = await pieces(embedded, call("smollm2", "Give JSON", response_schema=schema, temperature=0.0))
    assert json.loads(text_of(structured))["n"] in (1, 2)
    stream = embedded.stream(call("smollm2", "Tell a very long story", max_tokens=400))
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(20):
        assert text_of(await pieces(embedded, call("smollm2", "List three colours", max_tokens=8, temperature=0.0)))
    too_long = await error_of(embedded, call("smollm2", "word " * 3000))
    assert (too_long.code, too_long.detail["max"], too_long.detail["provider"]) == ("too_large", 1024, "embedded")
    url = (await embedded.load()).removesuffix("/v1")
    # The same server speaks Anthropic's language; without its key it speaks to nobody.
    mine = AnthropicProvider(lambda _: embedded._key)
    said = await pieces(mine, at(url, "anthropic", text="List three colours", temperature=0.0))
    assert text_of(said)
    assert usage_of(said).prompt_tokens > 0
    await mine.close()
    stranger = OpenAiProvider(lambda _: "wrong")
    assert (await error_of(stranger, at(f"{url}/v1"))).code == "provider_auth"
    await stranger.close()


@pytest.mark.parametrize(("status", "code"), STATUS_CODES)
async def test_a_status_of_an_openai_server_has_its_code(openai, status, code):
    async with answering(status, '{"error":{"message":"no: sk-secret-12345678"}}') as url:
        error = await error_of(openai, at(url))
    assert error.code == code
    assert error.detail["detail"] == "no: ***"


@pytest.mark.parametrize(("status", "code"), STATUS_CODES)
async def test_a_status_of_anthropic_has_its_code(anthropic, status, code):
    async with answering(status, '{"type":"error","error":{"type":"x","message":"no"}}') as url:
        assert (await error_of(anthropic, at(url, "anthropic"))).code == code


async def test_a_dead_port_is_unreachable(openai, anthropic):
    url = f"http://127.0.0.1:{free_port()}"
    assert (await error_of(openai, at(url))).code == "provider_unreachable"
    assert (await error_of(anthropic, at(url, "anthropic"))).code == "provider_unreachable"


def calls_of(said: list[Piece]) -> ToolCalls:
    (calls,) = (piece for piece in said if isinstance(piece, ToolCalls))
    return calls


def chunk(delta: dict, finish: str | None = None) -> str:
    return json.dumps(
        {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m-2026-11-01",
         "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    )  # fmt: skip


async def test_tool_calls_are_joined(openai):
    parts = [
        chunk(
            {
                "tool_calls": [
                    {"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": ""}}
                ]
            }
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
        chunk({}, "tool_calls"),
        "[DONE]",
    ]
    async with answering(200, events(*parts), kind="text/event-stream") as url:
        said = await pieces(openai, at(url, tools=[{"type": "function", "function": {"name": "look"}}]))
    assert calls_of(said) == ToolCalls(
        [{"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}]
    )
    assert (reason_of(said), model_of(said)) == ("tool_calls", "m-2026-11-01")


async def test_the_words_of_a_refusal_are_the_answer_and_the_end_says_that_it_is_one(openai):
    parts = [chunk({"role": "assistant", "refusal": "I "}), chunk({"refusal": "cannot", "content": None})]
    for finish, reason in (("stop", "refusal"), ("length", "length"), ("content_filter", "content_filter")):
        async with answering(200, events(*parts, chunk({}, finish), "[DONE]"), kind="text/event-stream") as url:
            said = await pieces(openai, at(url, response_schema={"type": "object"}))
        assert (text_of(said), reason_of(said)) == ("I cannot", reason)
    plain = events(chunk({"content": "yes", "refusal": None}), chunk({"refusal": ""}, "stop"), "[DONE]")
    async with answering(200, plain, kind="text/event-stream") as url:
        said = await pieces(openai, at(url))
    assert (text_of(said), reason_of(said)) == ("yes", "stop")


@pytest.mark.parametrize(
    "body",
    [
        events("{no json"),
        events(chunk({"content": "half"})),
        events(chunk({"content": ["x"]}), chunk({}, "stop")),
        events(chunk({"refusal": {"why": "x"}}), chunk({}, "stop")),
    ],
)
async def test_a_stream_that_cannot_be_read_or_just_ends_is_malformed(openai, body):
    async with answering(200, body, kind="text/event-stream") as url:
        assert (await error_of(openai, at(url))).code == "provider_malformed"


async def test_an_error_inside_a_stream_is_a_provider_error(openai):
    body = events(chunk({"content": "half"}), '{"error":{"message":"out of memory"}}')
    async with answering(200, body, kind="text/event-stream") as url:
        error = await error_of(openai, at(url))
    assert (error.code, error.detail["detail"]) == ("provider_error", "out of memory")


async def test_what_the_model_does_not_take_is_left_out():
    wanted = with_config(
        call(stop=["x"]), provider="anthropic", model="m", drop_params=("temperature", "stop_sequences")
    )
    assert arguments(wanted)["extra_body"] == {}
    assert "stop_sequences" not in arguments(wanted)


def test_a_conversation_is_turned_into_anthropics_shape():
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": "t1", "function": {"name": "look", "arguments": '{"a":1}'}}]},
        {"role": "tool", "tool_call_id": "t1", "content": "seen"},
    ]  # fmt: skip
    wanted = with_config(
        call(tools=[{"function": {"name": "look", "parameters": {"type": "object"}}}]), provider="anthropic"
    )
    request = wanted.request
    wanted = wanted._replace(request=type(request)(type(request.input)(messages), params=request.params))
    given = arguments(wanted)
    assert given["system"] == "be short"
    assert [turn["role"] for turn in given["messages"]] == ["user", "assistant", "user"]
    assert given["messages"][1]["content"] == [{"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}}]
    assert given["messages"][2]["content"][0]["tool_use_id"] == "t1"
    assert given["tools"][0]["input_schema"] == {"type": "object"}


def body(block: dict, delta: dict, stop: str) -> str:
    """A stream of Anthropic's with one block."""
    cached = {"cache_read_input_tokens": 40, "cache_creation_input_tokens": 7}
    usage = {"input_tokens": 3, "output_tokens": 1, **cached}
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m-2026-11-01",
        "content": [],
        "usage": usage,
    }
    steps = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return events_of(steps)


def events_of(steps: Sequence[Any]) -> str:
    """Anthropic's events as they stand on the wire."""
    return "".join(f"event: {step['type']}\ndata: {json.dumps(step)}\n\n" for step in steps)


@pytest.mark.parametrize(
    ("stop", "reason"),
    [("refusal", "refusal"), ("model_context_window_exceeded", "length"), ("stop_sequence", "stop")],
)
async def test_every_end_of_anthropics_has_the_same_name_as_elsewhere(anthropic, stop, reason):
    text = body({"type": "text", "text": ""}, {"type": "text_delta", "text": "hello"}, stop)
    async with answering(200, text, kind="text/event-stream") as url:
        said = await pieces(anthropic, at(url, "anthropic"))
    assert (reason_of(said), model_of(said)) == (reason, "m-2026-11-01")


async def test_a_count_of_anthropics_that_shrinks_is_the_larger_one(anthropic):
    text = body({"type": "text", "text": ""}, {"type": "text_delta", "text": "hello"}, "end_turn")
    first, last = (
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
        for usage in ({"input_tokens": 5, "output_tokens": 9}, {"input_tokens": 0, "output_tokens": 0})
    )
    end = text.index("event: message_delta")
    text = text[:end] + events_of([first, last, {"type": "message_stop"}])
    heard = Heard(None, [])
    async with answering(200, text, kind="text/event-stream") as url:
        for piece in await pieces(anthropic, at(url, "anthropic")):
            heard.take(piece)
    assert heard.tokens_used() == (TokensUsed(52, 9, cache_read=40, cache_written=7), False)


async def test_anthropic_streams_text_tools_and_structured_answers(anthropic):
    text = body({"type": "text", "text": ""}, {"type": "text_delta", "text": "hello"}, "end_turn")
    async with answering(200, text, kind="text/event-stream") as url:
        said = await pieces(anthropic, at(url, "anthropic"))
    assert (text_of(said), reason_of(said), usage_of(said)[:2]) == ("hello", "stop", (50, 5))
    assert (usage_of(said).cache_read, usage_of(said).cache_written) == (40, 7)
    tool = body(
        {"type": "tool_use", "id": "t", "name": "answer", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"n":1}'},
        "tool_use",
    )
    async with answering(200, tool, kind="text/event-stream") as url:
        said = await pieces(anthropic, at(url, "anthropic"))
        structured = await pieces(anthropic, at(url, "anthropic", response_schema={"type": "object"}))
        tools = [{"function": {"name": "look"}}]
        chosen = await pieces(anthropic, at(url, "anthropic", response_schema={"type": "object"}, tools=tools))
    assert (json.loads(text_of(chosen)), reason_of(chosen)) == ({"n": 1}, "stop")
    look = body(
        {"type": "tool_use", "id": "t", "name": "look", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"n":1}'},
        "tool_use",
    )
    async with answering(200, look, kind="text/event-stream") as url:
        looks = await pieces(anthropic, at(url, "anthropic", response_schema={"type": "object"}, tools=tools))
    assert (text_of(looks), reason_of(looks), calls_of(looks).calls[0]["function"]["name"]) == (
        "",
        "tool_calls",
        "look",
    )
    assert calls_of(said)
    assert json.loads(calls_of(said).calls[0]["function"]["arguments"]) == {"n": 1}
    assert reason_of(said) == "tool_calls"
    assert (text_of(structured), reason_of(structured)) == ('{"n":1}', "stop")
