"""The mock is deterministic and does on command what real models do at the worst moment."""

import asyncio
import json
import tracemalloc
from typing import Any

import pytest
from msgspec.structs import replace

from contracts.errors import CATALOGUE
from services.llm_worker.providers.example import example_of
from services.llm_worker.providers.mock import TEXT_CHARS_MAX, MockProvider
from services.llm_worker.providers.protocol import Call, Delta
from tests.unit.llm_worker.support import call, error_of, pieces, reason_of, text_of, usage_of


async def test_the_same_seed_and_prompt_give_the_same_text():
    first, again = [await pieces(MockProvider(), call("mock:seed=7")) for _ in range(2)]
    assert first == again
    assert text_of(first) != text_of(await pieces(MockProvider(), call("mock:seed=8")))
    assert text_of(first) != text_of(await pieces(MockProvider(), call("mock:seed=7", "Say ho")))
    assert text_of(first) == text_of(await pieces(MockProvider(), call("mock", seed=7)))


async def test_streamed_or_not_the_output_is_the_same():
    whole, streamed = await pieces(MockProvider(), call()), await pieces(MockProvider(), call(stream=True))
    assert text_of(whole) == text_of(streamed)
    assert len([piece for piece in streamed if isinstance(piece, Delta)]) == 20


async def test_tokens_price_and_text_are_commanded():
    said = await pieces(MockProvider(), call("mock:tokens=5,price=0.01/call"))
    assert (usage_of(said).completion_tokens, usage_of(said).cost_usd_micros) == (5, 10_000)
    assert len(text_of(said).split()) == 5
    assert text_of(await pieces(MockProvider(), call("mock:text=hello+world"))) == "hello world"
    assert text_of(await pieces(MockProvider(), call(mock={"text": "a  b"}))) == "a  b"
    assert usage_of(await pieces(MockProvider(), call("mock:price=2/mtok,tokens=0"))).cost_usd_micros > 0
    assert usage_of(await pieces(MockProvider(), call())).cost_usd_micros is None  # by the table


@pytest.mark.parametrize("price", ["1e1000/call", "1e30/mtok", "1000001", "-1", "nan", "inf"])
async def test_a_price_that_no_sum_could_hold_is_refused(price):
    assert (await error_of(MockProvider(), call(f"mock:price={price}"))).code == "invalid_request"


@pytest.mark.parametrize("delay", ["nan", "inf", "-1", "1e9", "99999m"])
async def test_a_delay_that_is_no_time_is_refused(delay):
    assert (await error_of(MockProvider(), call(f"mock:delay={delay}"))).code == "invalid_request"


async def test_a_text_that_is_repeated_is_never_longer_than_what_is_kept():
    tracemalloc.start()
    try:
        said = await pieces(MockProvider(), call(mock={"text": "x" * 100_000, "repeat": 2_000}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(text_of(said)) == TEXT_CHARS_MAX
    assert peak < 5 * TEXT_CHARS_MAX


async def test_no_more_words_are_made_than_may_be_said():
    tracemalloc.start()
    try:
        said = await pieces(MockProvider(), call(mock={"text": "x " * 1_000, "repeat": 500}, max_tokens=7))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (text_of(said), reason_of(said)) == ("x x x x x x x", "length")
    assert peak < 10_000_000


async def test_a_small_schema_of_a_huge_value_is_refused():
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(8):
        schema = {"type": "array", "minItems": 100, "items": schema}
    for huge in (schema, {"type": "string", "minLength": 10**9}):
        assert (await error_of(MockProvider(), call(response_schema=huge))).code == "provider_rejected"


async def test_max_tokens_cuts_it_short():
    said = await pieces(MockProvider(), call("mock:tokens=100", max_tokens=7))
    assert (len(text_of(said).split()), reason_of(said)) == (7, "length")
    assert reason_of(await pieces(MockProvider(), call())) == "stop"


@pytest.mark.parametrize("code", [code for code, kind in CATALOGUE.items() if kind.error_class == "llm"])
async def test_it_fails_with_the_code_it_is_told(code):
    assert (await error_of(MockProvider(), call(f"mock:fail={code}"))).code == code


async def test_it_fails_at_first_and_answers_then():
    mock = MockProvider()
    for _ in range(2):
        assert (await error_of(mock, call("mock:fail_first=2"))).code == "provider_error"
    assert text_of(await pieces(mock, call("mock:fail_first=2")))


async def test_later_attempts_of_a_run_know_that_the_first_ones_failed():
    def attempt(number: int) -> Call:
        one = call("mock:fail_first=2")
        return one._replace(request=replace(one.request, node_id=f"a-s{number}", attempt=number))

    for number in (1, 2):
        assert (await error_of(MockProvider(), attempt(number))).code == "provider_error"
    assert text_of(await pieces(MockProvider(), attempt(3)))


async def test_malformed_is_malformed():
    assert (await error_of(MockProvider(), call("mock:malformed"))).code == "provider_malformed"


async def test_it_hangs_until_somebody_ends_it():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await pieces(MockProvider(), call("mock:hang"))


async def test_it_is_late_on_command():
    loop = asyncio.get_running_loop()
    began = loop.time()
    await pieces(MockProvider(), call("mock:delay=50ms,stream_delay=10ms,tokens=3", stream=True))
    assert loop.time() - began >= 0.08


async def test_a_schema_is_answered_with_a_value_of_it():
    schema = {
        "type": "object",
        "required": ["tasks", "kind", "n"],
        "properties": {
            "tasks": {"type": "array", "minItems": 2, "items": {"type": "object", "required": ["title"],
                      "properties": {"title": {"type": "string", "minLength": 6, "maxLength": 8}}}},
            "kind": {"enum": ["a", "b"]},
            "n": {"type": "integer", "minimum": 3},
        },
    }  # fmt: skip
    answer = json.loads(text_of(await pieces(MockProvider(), call(response_schema=schema))))
    assert answer == {"tasks": [{"title": "mockkk"}, {"title": "mockkk"}], "kind": "a", "n": 3}


def test_examples_of_odd_schemas():
    assert example_of({"anyOf": [{"type": "null"}, {"type": "string"}]}) is None
    assert example_of({"type": ["boolean", "null"]}) is True
    assert example_of({"const": 5}) == 5
    assert example_of({"type": "array", "minItems": 1, "items": {"type": "number"}}) == [0]
