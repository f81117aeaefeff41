"""What providers say when they cannot: a status, a header, a word in the middle of a stream, each as a code of ours."""

import json

import pytest

from services.llm_worker.providers.anthropic import AnthropicProvider
from services.llm_worker.providers.failures import of_status, of_stream, retry_after_s
from services.llm_worker.providers.openai import OpenAiProvider
from tests.unit.llm_worker.http_provider import answering, events
from tests.unit.llm_worker.support import call, error_of, with_config

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
DATE = "Sat, 28 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": " 0 "}, 0),
        ({"retry-after": "86400"}, 86_400),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 40}, None),
        ({"retry-after": "Sat, 28 Nov 2026 12:00:07 GMT"}, None),
        ({"retry-after": "Sat, 28 Nov 2026 12:00:07 GMT", "date": DATE}, 7),
        ({"retry-after": "Sat, 28 Nov 2026 11:00:00 GMT", "date": DATE}, 0),
    ],
)
def test_when_a_provider_wants_to_be_asked_again(headers, seconds):
    assert retry_after_s(headers) == seconds
    assert of_status(429, "no", "openai", headers).detail.get("retry_after") == seconds


@pytest.mark.parametrize("kind", [OpenAiProvider, AnthropicProvider])
async def test_it_is_told_to_whoever_asked(kind):
    name = "openai" if kind is OpenAiProvider else "anthropic"
    provider = kind(lambda _: "k")
    async with answering(429, '{"error":{"message":"slow"}}', headers="retry-after: 3\r\n") as url:
        error = await error_of(provider, with_config(call(), provider=name, model="m", base_url=url))
    await provider.close()
    assert (error.code, error.detail["retry_after"]) == ("provider_overloaded", 3)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "provider_overloaded"),
        ({"type": "error", "error": {"type": "authentication_error", "message": "no"}}, "provider_auth"),
        ({"type": "error", "error": {"type": "api_error", "message": "no"}}, "provider_error"),
        ({"message": "slow", "type": "requests", "code": "rate_limit_exceeded"}, "provider_overloaded"),
        ({"message": "busy", "code": 503}, "provider_overloaded"),
        ({"message": "odd", "code": 200, "type": ["x"]}, "provider_error"),
        ("no words", "provider_error"),
    ],
)
def test_an_error_in_a_stream_is_known_by_its_word(body, code):
    assert of_stream(body, "p").code == code
    assert of_status(200, body, "p").code == code


async def test_anthropic_is_overloaded_in_the_middle_of_a_stream():
    usage = {"input_tokens": 3, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    steps = [
        {"type": "message_start", "message": message},
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    ]
    body = "".join(f"event: {step['type']}\ndata: {json.dumps(step)}\n\n" for step in steps)
    provider = AnthropicProvider(lambda _: "k")
    async with answering(200, body, kind="text/event-stream") as url:
        error = await error_of(provider, with_config(call(), provider="anthropic", model="m", base_url=url))
    await provider.close()
    assert (error.code, error.detail["detail"]) == ("provider_overloaded", "Overloaded")


async def test_an_openai_server_is_overloaded_in_the_middle_of_a_stream():
    body = events('{"error":{"message":"busy","code":503}}')
    provider = OpenAiProvider(lambda _: "k")
    async with answering(200, body, kind="text/event-stream") as url:
        error = await error_of(provider, with_config(call(), provider="openai", model="m", base_url=url))
    await provider.close()
    assert error.code == "provider_overloaded"
