"""Each provider as a caller of the worker sees it: it answers, streams, is stopped, is slow, refuses, makes no sense.

OpenAI's and Anthropic's dialects come from the real model of this machine; what a real one does rarely comes from
servers that misbehave; the command line program is a stand-in that speaks the real one's lines.
"""

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.providers.cli import CliProvider
from services.llm_worker.providers.embedded import EmbeddedProvider
from services.runtime.bus import Bus, Message
from tests.support.eventually import eventually
from tests.support.nats_server import free_port
from tests.unit.llm_worker.crew import INPUT, LIFTED, Crew
from tests.unit.llm_worker.http_provider import answering, events

pytestmark = [
    pytest.mark.timeout(120),
    # Both SDKs leave sockets of a broken stream to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
HTTP = ["openai", "anthropic"]
RUN = {"Htdag-Answer-To": "htdag.v1.cmd.executor.run.r.answer"}
"""A run tries again by itself: then one request is one call."""
PROGRAM = """
    import json, signal, sys
    prompt = sys.stdin.read()
    def say(**line): print(json.dumps(line), flush=True)
    say(type="system", subtype="init")
    for word in ("Hel", "lo"):
        say(type="stream_event", event={"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}})
    if "hang" in prompt: signal.pause()
    if "nonsense" in prompt: sys.exit(print("this is no JSON", flush=True))
    wrong = {"bad key": "Invalid API key", "overload": "Overloaded"}
    said = next((text for word, text in wrong.items() if word in prompt), "")
    usage = {"input_tokens": 4, "output_tokens": 2}
    say(type="result", subtype="success", is_error=bool(said), result=said, usage=usage)
"""


CUT = "".join(
    f"event: {step['type']}\ndata: {json.dumps(step)}\n\n"
    for step in (
        {
            "type": "message_start",
            "message": {
                "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [],
                "usage": {"input_tokens": 1, "output_tokens": 1},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half an ans"}},
    )
)  # fmt: skip
"""A stream of Anthropic's that breaks off."""


@asynccontextmanager
async def crew_of(bus: Bus, model: ModelConfig, key: str = "sk-key-12345678", **config: Any) -> AsyncIterator[Crew]:
    """A worker with the model `m`."""
    crew = Crew(bus, Config(limits=LIFTED, models={"m": model}, openai_api_key=key, anthropic_api_key=key, **config))
    await crew.breakers.start()
    await crew.worker.start()
    try:
        yield crew
    finally:
        await crew.worker.drain(5)
        await crew.providers.close()
        await crew.judge.close()


def over_http(kind: Any, url: str) -> ModelConfig:
    env = "OPENAI_API_KEY" if kind == "openai" else "ANTHROPIC_API_KEY"
    return ModelConfig(provider=kind, model="smollm2", base_url=url, api_key_env=env)


STORY: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell a very long story"}]}


async def outcome(crew: Crew, corr_id: str, asked: dict[str, Any] = INPUT, **params: Any) -> dict[str, Any]:
    wanted = {"max_tokens": 12, "temperature": 0.0, **params}
    await crew.ask(corr_id, model="m", headers=RUN, input=asked, params=wanted)
    return await eventually(lambda: crew.answer(corr_id), timeout_s=40)


async def heard_tokens(bus: Bus, corr_id: str) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = []

    def take(message: Message) -> None:
        tokens.append(json.loads(message.data))

    await bus.subscribe(f"htdag.v1.llm.tokens.r.n-{corr_id}", take)
    await bus.flush()
    return tokens


@pytest.mark.parametrize("kind", HTTP)
async def test_a_real_model_answers_streams_is_stopped_and_wants_its_key(bus, kind):
    server = EmbeddedProvider(Config(embedded_context_tokens=1024))
    url = await server.load()
    url = url if kind == "openai" else url.removesuffix("/v1")
    try:
        async with crew_of(bus, over_http(kind, url), key=server._key) as crew:
            plain = await outcome(crew, "plain")
            assert plain["output"]
            assert plain["usage"]["completion_tokens"] > 0
            tokens = await heard_tokens(bus, "stream")
            streamed = await outcome(crew, "stream", stream=True)
            await eventually(lambda: tokens and tokens[-1]["done"])
            assert "".join(token["chunk"] for token in tokens) == streamed["output"] == plain["output"]
            assert [token["seq"] for token in tokens] == list(range(1, len(tokens) + 1))
            tokens = await heard_tokens(bus, "stop")
            stopping = asyncio.create_task(outcome(crew, "stop", STORY, stream=True, max_tokens=800))
            await eventually(lambda: len(tokens) > 2, timeout_s=20)
            assert crew.worker.flights.cancel("stop")
            error = (await stopping)["error"]
            assert (error["code"], error["usage_estimated"]) == ("cancelled", True)
            assert error["usage"]["completion_tokens"] >= 1
            # The slot is free again: the model let go.
            assert (await outcome(crew, "next"))["output"]
            slow = await outcome(crew, "slow", STORY, max_tokens=800, timeout_ms=200)
            assert slow["error"]["code"] == "timeout"
        async with crew_of(bus, over_http(kind, url), key="sk-wrong-12345678") as crew:
            assert (await outcome(crew, "key"))["error"]["code"] == "provider_auth"
    finally:
        await server.close()


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, '{"error":{"message":"no"}}', "provider_auth"),
        (429, '{"error":{"message":"slow down"}}', "provider_overloaded"),
        (529, '{"error":{"message":"overloaded"}}', "provider_overloaded"),
        (400, '{"error":{"message":"no"}}', "provider_rejected"),
        (500, "<html>", "provider_error"),
    ],
)
async def test_a_refusal_of_a_server_reaches_the_caller_under_its_code(bus, kind, status, body, code):
    async with answering(status, body) as url, crew_of(bus, over_http(kind, url)) as crew:
        error = (await outcome(crew, "c"))["error"]
    assert error["code"] == code
    assert "sk-key" not in json.dumps(error)


@pytest.mark.parametrize("kind", HTTP)
async def test_a_server_that_hangs_is_a_timeout_and_a_dead_one_is_unreachable(bus, kind):
    async with answering(200, "", kind="text/event-stream", hang=True) as url, crew_of(
        bus, over_http(kind, url)
    ) as crew:  # fmt: skip
        assert (await outcome(crew, "slow", timeout_ms=300))["error"]["code"] == "timeout"
    async with crew_of(bus, over_http(kind, f"http://127.0.0.1:{free_port()}")) as crew:
        assert (await outcome(crew, "dead"))["error"]["code"] == "provider_unreachable"


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize("body", [events("{no json"), "", events('{"type":"message_start"}'), CUT])
async def test_a_stream_without_sense_is_malformed_and_nothing_breaks(bus, kind, body):
    async with answering(200, body, kind="text/event-stream") as url, crew_of(bus, over_http(kind, url)) as crew:
        assert (await outcome(crew, "c"))["error"]["code"] == "provider_malformed"


async def test_a_program_answers_streams_is_stopped_and_fails_under_its_code(bus, tmp_path):
    path = Path(tmp_path / "program.py")
    path.write_text(textwrap.dedent(PROGRAM))
    model = ModelConfig(provider="cli", argv=(sys.executable, str(path)))

    def saying(text: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}]}

    async with crew_of(bus, model) as crew:
        crew.providers.use("cli", CliProvider(lambda _: "", {"PATH": ""}))
        assert (await outcome(crew, "plain"))["output"] == "Hello"
        tokens = await heard_tokens(bus, "stream")
        assert (await outcome(crew, "stream", stream=True))["output"] == "Hello"
        await eventually(lambda: tokens and tokens[-1]["done"])
        assert [token["chunk"] for token in tokens] == ["Hel", "lo", ""]
        for corr_id, text, code in (
            ("key", "bad key", "provider_auth"),
            ("over", "overload", "provider_overloaded"),
            ("odd", "nonsense", "provider_malformed"),
            ("slow", "hang", "timeout"),
        ):
            await crew.ask(corr_id, model="m", headers=RUN, input=saying(text), params={"timeout_ms": 2_000})
            answer = await eventually(lambda corr_id=corr_id: crew.answer(corr_id), timeout_s=20)
            assert answer["error"]["code"] == code, corr_id
        tokens = await heard_tokens(bus, "stop")
        await crew.ask("stop", model="m", headers=RUN, input=saying("hang"), params={"stream": True})
        await eventually(lambda: len(tokens) == 2, timeout_s=10)
        assert crew.worker.flights.cancel("stop")
        answer = await eventually(lambda: crew.answer("stop"), timeout_s=10)
        assert (answer["error"]["code"], answer["error"]["usage"]["completion_tokens"]) == ("cancelled", 2)
