"""One answer in every dialect of a provider is one answer to whoever asked: tool calls and counts have the same rules.

The servers are stand-ins over HTTP and, for a foreign worker, over the broker: they say what a real one says rarely.
"""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest

from contracts.subjects import llm_serve
from services.llm_worker.config import ModelConfig
from services.llm_worker.providers.foreign import ForeignProvider
from services.runtime.bus import Bus, Message
from tests.unit.llm_worker.crew import Crew
from tests.unit.llm_worker.http_provider import answering, events
from tests.unit.llm_worker.test_provider_ends import crew_of, outcome, over_http

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
DIALECTS = ["openai", "anthropic", "nats"]
TOOLS = [{"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}]
COUNTED = (5, 9)
PRICES: dict[str, Any] = {"price_in_usd_per_mtok": 10.0, "price_out_usd_per_mtok": 20.0}
COST = 230


class Wanted(NamedTuple):
    """One tool call as a model writes it: its arguments are text until somebody reads them."""

    id: str
    name: str
    arguments: str


def counted(usage: Any, names: str) -> Any:
    """Two counts under the names of a dialect; anything else as it is."""
    return dict(zip(names.split(), usage, strict=True)) if isinstance(usage, tuple) else usage


def openai_says(calls: Sequence[Wanted], usage: Any) -> str:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    parts = [
        {"index": index, "id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
        for index, one in enumerate(calls)
    ]
    delta: dict[str, Any] = {"tool_calls": parts} if parts else {"content": "hi"}
    said = {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": "tool_calls" if parts else "stop"}]}
    # A whole total must not vouch for parts that are none.
    usage = counted((*usage, 14) if isinstance(usage, tuple) else usage, "prompt_tokens completion_tokens total_tokens")
    return events(json.dumps(said), json.dumps({**chunk, "choices": [], "usage": usage}), "[DONE]")


def anthropic_says(calls: Sequence[Wanted], usage: Any) -> str:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
    usage = counted(usage, "input_tokens output_tokens")
    steps: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "usage": usage}}]
    for index, one in enumerate(calls):
        block = {"type": "tool_use", "id": one.id, "name": one.name, "input": {}}
        steps.append({"type": "content_block_start", "index": index, "content_block": block})
        half = len(one.arguments) // 2
        for part in (one.arguments[:half], one.arguments[half:]):
            delta = {"type": "input_json_delta", "partial_json": part}
            steps.append({"type": "content_block_delta", "index": index, "delta": delta})
        steps.append({"type": "content_block_stop", "index": index})
    if not calls:
        steps += [
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
            {"type": "content_block_stop", "index": 0},
        ]
    steps += [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use" if calls else "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {step['type']}\ndata: {json.dumps(step)}\n\n" for step in steps)


def cli_says(usage: Any) -> str:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}}
    end = {"type": "result", "is_error": False, "usage": counted(usage, "input_tokens output_tokens")}
    lines = "\n".join(json.dumps(line) for line in ({"type": "stream_event", "event": event}, end))
    return f"import sys\nsys.stdin.read()\nprint({lines!r}, flush=True)"


def nats_says(calls: Sequence[Wanted], usage: Any) -> dict[str, Any]:
    return {
        "output": "" if calls else "hi",
        "tool_calls": [one._asdict() for one in calls],
        "usage": counted(usage, "prompt_tokens completion_tokens"),
        "finish_reason": "tool_calls" if calls else "stop",
    }


@asynccontextmanager
async def serving(bus: Bus, kind: str, calls: Sequence[Wanted] = (), usage: Any = COUNTED) -> AsyncIterator[Crew]:
    """A worker whose model `m` says the same in the dialect of `kind`."""
    if kind == "nats":

        def serve(message: Message) -> None:
            bus.publish(message.reply, json.dumps(nats_says(calls, usage)).encode())

        await bus.subscribe(llm_serve("m"), serve)
        await bus.flush()
        async with crew_of(bus, ModelConfig(provider="nats", **PRICES)) as crew:
            crew.providers.use("nats", ForeignProvider(bus, "w1"))
            yield crew
        return
    if kind == "cli":
        async with crew_of(
            bus, ModelConfig(provider="cli", argv=(sys.executable, "-c", cli_says(usage)), **PRICES)
        ) as crew:
            yield crew
        return
    says = openai_says if kind == "openai" else anthropic_says
    async with answering(200, says(calls, usage), kind="text/event-stream") as url, crew_of(
        bus, msgspec.structs.replace(over_http(kind, url), **PRICES)
    ) as crew:  # fmt: skip
        yield crew


@pytest.mark.parametrize("kind", DIALECTS)
@pytest.mark.parametrize(
    "arguments",
    ['{"cmd":["rm","-rf","/code/bui', '{"write":"/code/a.py","content":"first half of', '{"a":', "[1,2]", '{"a":1}}'],
)
async def test_arguments_that_are_no_whole_object_are_shown_as_they_came_and_never_mended(bus, kind, arguments):
    async with serving(bus, kind, [Wanted("t1", "shell", arguments)]) as crew:
        answer = await outcome(crew, "c", tools=TOOLS)
    assert answer["tool_calls"] == [{"id": "t1", "name": "shell", "arguments": {"malformed": arguments}}]


@pytest.mark.parametrize("kind", DIALECTS)
async def test_each_tool_call_of_an_answer_has_an_id_of_its_own(bus, kind):
    calls = [
        Wanted(call_id, "shell", f'{{"a":{number}}}')
        for number, call_id in enumerate(["t1", "t1", "", "call_2", "call_4"], 1)
    ]
    async with serving(bus, kind, calls) as crew:
        found = (await outcome(crew, "c", tools=TOOLS))["tool_calls"]
    ids = [one["id"] for one in found]
    assert len(set(ids)) == len(calls)
    assert (ids[0], ids[2:]) == ("t1", ["call_3", "call_2", "call_4"])
    assert [one["arguments"]["a"] for one in found] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", DIALECTS)
@pytest.mark.parametrize("name", ["", "  "])
async def test_a_tool_call_without_a_name_is_malformed_and_paid(bus, kind, name):
    calls = [Wanted("t1", "shell", "{}"), Wanted("t2", name, "{}")]
    async with serving(bus, kind, calls) as crew:
        error = (await outcome(crew, "c", tools=TOOLS))["error"]
    assert (error["code"], error["usage_estimated"]) == ("provider_malformed", False)
    assert error["cost_usd_micros"] == COST


@pytest.mark.parametrize("kind", [*DIALECTS, "cli"])
@pytest.mark.parametrize("usage", [(True, True), ("5", "9"), (5.0, 9.0), (5, False), (None, 9), (5, [9]), (5.5, 9)])
async def test_a_count_that_is_no_whole_number_is_unknown(bus, kind, usage):
    async with serving(bus, kind, usage=usage) as crew:
        answer = await outcome(crew, "c")
    assert (answer["output"], answer["cost_usd_micros"]) == ("hi", None)
    assert answer["usage"]["prompt_tokens"] > COUNTED[0]


@pytest.mark.parametrize("kind", [*DIALECTS, "cli"])
@pytest.mark.parametrize("usage", [None, {}, [1, 2], "lots"])
async def test_an_answer_that_counts_nothing_is_an_answer_of_unknown_price(bus, kind, usage):
    async with serving(bus, kind, usage=usage) as crew:
        answer = await outcome(crew, "c")
    assert (answer["output"], answer["cost_usd_micros"]) == ("hi", None)


@pytest.mark.parametrize("kind", DIALECTS)
async def test_counts_are_believed_and_whole_arguments_are_read(bus, kind):
    async with serving(bus, kind, [Wanted("t1", "shell", '{"cmd":["ls"]}')]) as crew:
        answer = await outcome(crew, "c", tools=TOOLS)
    assert answer["tool_calls"] == [{"id": "t1", "name": "shell", "arguments": {"cmd": ["ls"]}}]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == COUNTED
    assert answer["cost_usd_micros"] == COST
    assert answer["finish_reason"] == "tool_calls"


async def test_only_the_first_choice_of_an_openai_server_is_the_answer(bus):
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def choice(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text}, "finish_reason": finish}

    steps = [[choice(0, "A")], [choice(1, "B")], [choice(1, "C"), choice(0, "D")], [choice(1, "", "length")]]
    body = events(*(json.dumps({**chunk, "choices": step}) for step in [*steps, [choice(0, "", "stop")]]), "[DONE]")
    async with answering(200, body, kind="text/event-stream") as url, crew_of(bus, over_http("openai", url)) as crew:
        answer = await outcome(crew, "c")
    assert (answer["output"], answer["finish_reason"]) == ("AD", "stop")


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_stream_that_is_torn_off_is_an_unreachable_provider_and_one_too_deep_is_malformed(bus, kind):
    whole = (openai_says if kind == "openai" else anthropic_says)([], COUNTED)
    torn, deep = whole[: whole.index("\n\n") + 2], f"event: x\ndata: {'[' * 100_000}\n\n"
    for code, body, headers in (
        ("provider_unreachable", torn, "content-length: 100000\r\n"),
        ("provider_malformed", torn + deep, ""),
    ):
        async with answering(200, body, kind="text/event-stream", headers=headers) as url, crew_of(
            bus, over_http(kind, url)
        ) as crew:  # fmt: skip
            assert (await outcome(crew, code))["error"]["code"] == code


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_provider_is_told_which_call_it_is_so_that_it_can_bill_it_once(bus, kind):
    """So does whoever takes it over from a worker that was killed: the call keeps its name."""
    asked: list[bytes] = []
    async with answering(503, "{}", asked=asked) as url, crew_of(bus, over_http(kind, url)) as crew:
        await outcome(crew, "call-7")
    assert asked
    assert all(b"\r\nidempotency-key: call-7\r\n" in one for one in asked)


async def test_calls_under_one_number_are_told_apart_by_their_ids(bus):
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def part(call_id: str | None, name: str | None, arguments: str) -> str:
        call = {"index": 0, "id": call_id, "function": {"name": name, "arguments": arguments}}
        return json.dumps({**chunk, "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})

    end = json.dumps({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    body = events(part("t1", "shell", '{"a"'), part(None, None, ":1}"), part("t2", "fs", '{"b":2}'), end, "[DONE]")
    async with answering(200, body, kind="text/event-stream") as url, crew_of(bus, over_http("openai", url)) as crew:
        answer = await outcome(crew, "c", tools=TOOLS)
    assert answer["tool_calls"] == [
        {"id": "t1", "name": "shell", "arguments": {"a": 1}},
        {"id": "t2", "name": "fs", "arguments": {"b": 2}},
    ]


@pytest.mark.parametrize("tools", [None, TOOLS])
async def test_a_structured_answer_of_anthropics_that_is_cut_off_is_not_mended_either(bus, tools):
    schema = {"type": "object"}
    for corr_id, written in (("cut", '{"n":1,"rest":"first ha'), ("whole", '{"n":1}')):
        async with serving(bus, "anthropic", [Wanted("t1", "answer", written)]) as crew:
            answer = await outcome(crew, corr_id, response_schema=schema, tools=tools)
        if corr_id == "cut":
            assert answer["error"]["code"] == "output_invalid"
        else:
            assert (answer["output"], answer["tool_calls"], answer["finish_reason"]) == (written, [], "stop")


async def test_input_that_a_server_gives_as_a_whole_is_the_input(bus):
    text = anthropic_says([Wanted("t1", "shell", "")], COUNTED).replace('"input": {}', '"input": {"cmd": ["ls"]}')
    async with answering(200, text, kind="text/event-stream") as url, crew_of(bus, over_http("anthropic", url)) as crew:
        answer = await outcome(crew, "c", tools=TOOLS)
    assert answer["tool_calls"] == [{"id": "t1", "name": "shell", "arguments": {"cmd": ["ls"]}}]
