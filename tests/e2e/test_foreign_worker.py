"""A worker in another language: 30 lines that serve a model, checked by `htdag conformance`, behind the whole edge."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from tests.e2e.instance import Instance
from tests.support.eventually import eventually
from tests.support.listening import listen

pytestmark = pytest.mark.timeout(120)
ECHO = Path(__file__).parents[1] / "support" / "echo_worker.py"
SERVE = "htdag.v1.llm.serve.rude"
INPUT = {"messages": [{"role": "user", "content": "one two three"}]}
TABLE = {
    "parrot": {"provider": "nats", "model": "echo", "price_in_usd_per_mtok": 1.0, "price_out_usd_per_mtok": 2.0},
    "rude": {"provider": "nats"},
    "nobody": {"provider": "nats"},
}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    home = tmp_path_factory.mktemp("foreign") / "home"
    made = Instance(home, HTDAG_LLM_WORKER__MODELS=json.dumps(TABLE))
    made.up("--only", "llm-worker")
    yield made
    made("down")
    assert made.refusals() == []


@pytest.fixture
async def client(instance: Instance) -> AsyncIterator[Client]:
    async with await nats.connect(instance.url) as connected:
        yield connected


@pytest.fixture
def echo(instance: Any) -> Iterator[list["subprocess.Popen[bytes]"]]:
    workers = [subprocess.Popen([sys.executable, str(ECHO), instance.url, "echo"]) for _ in range(2)]
    yield workers
    for worker in workers:
        worker.kill()
        worker.wait()


async def ask(client: Client, model: str, **body: Any) -> Any:
    data = json.dumps({"input": INPUT, **body}).encode()
    return json.loads((await client.request(f"llm.req.{model}", data, timeout=15)).data)


async def serving(client: Client) -> None:
    async def answers() -> bool:
        return "output" in await ask(client, "nats/echo")

    await eventually(answers, timeout_s=15)


def test_thirty_lines_are_thirty_lines():
    assert len([line for line in ECHO.read_text().splitlines() if line.strip() and not line.startswith('"""')]) <= 36


async def test_a_foreign_worker_conforms_and_one_that_is_not_there_does_not(instance, client, echo):
    await serving(client)
    said = await asyncio.to_thread(instance, "conformance", "worker", "--model", "echo", "--json")
    assert said.code == 0, said.out
    assert {point["outcome"] for point in said.document["points"]} == {"pass"}
    assert len(said.document["points"]) == 10
    nobody = await asyncio.to_thread(instance, "conformance", "worker", "--model", "ghost", "--wait", "1", "--json")
    assert (nobody.code, len(nobody.document["points"])) == (1, 1)


async def test_its_model_is_one_like_any_other_priced_streamed_and_paid_once(instance, client, echo):
    await serving(client)
    tokens: list[dict[str, Any]] = []
    await listen(client, "llm.tokens.r.t", lambda message: tokens.append(json.loads(message.data)))
    body = {"run_id": "r", "node_id": "t", "corr_id": "p1", "params": {"stream": True}}
    answer = await ask(client, "parrot", **body)
    assert (answer["output"], answer["model_used"]) == ("one two three", "parrot")
    assert answer["usage"]["total_tokens"] == 6
    assert answer["cost_usd_micros"] == 9
    await eventually(lambda: tokens and tokens[-1]["done"])
    assert "".join(token["chunk"] for token in tokens) == "one two three"
    assert await ask(client, "parrot", **body) == answer
    for worker in echo:
        worker.kill()
        worker.wait()
    assert (await ask(client, "parrot", **body)) == answer


async def test_nobody_serves(client):
    error = (await ask(client, "nobody"))["error"]
    assert (error["code"], error["subject"]) == ("provider_unreachable", "htdag.v1.llm.serve.nobody")


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b'{"error":"it broke"}', "provider_error"),
        (b'{"error":{"code":"provider_auth","message":"no key"}}', "provider_auth"),
        (b'{"error":{"code":"budget_exceeded"}}', "provider_error"),
        (b"[1]", "provider_malformed"),
        (b"\xff", "provider_malformed"),
        (b'{"output":"free","usage":{"prompt_tokens":"many"}}', None),
        (b'{"output":"free"}', None),
    ],
)
async def test_what_it_says_has_its_code_and_what_it_does_not_count_has_no_price(client, reply, code):
    subscription = await listen(client, SERVE, lambda message: message.respond(reply), queue="workers")
    answer = await ask(client, "rude")
    await subscription.unsubscribe()
    if code is None:
        assert answer["cost_usd_micros"] is None
        assert answer["usage"]["total_tokens"] > 0
    else:
        assert answer["error"]["code"] == code


async def test_a_call_that_is_cancelled_is_told_to_its_worker(client):
    asked: list[dict[str, Any]] = []
    stopped: list[dict[str, Any]] = []
    one = await listen(client, SERVE, lambda message: asked.append(json.loads(message.data)), queue="workers")
    await listen(client, "htdag.v1.llm.stop.rude", lambda message: stopped.append(json.loads(message.data)))
    asking = asyncio.create_task(ask(client, "rude", corr_id="stop-me"))
    await eventually(lambda: asked)
    await client.request("htdag.v1.llm-worker.llm.cancel", b'{"corr_id":"stop-me"}', timeout=5)
    assert (await asking)["error"]["code"] == "cancelled"
    await eventually(lambda: stopped)
    assert stopped == [{"corr_id": "stop-me"}]
    late = await ask(client, "rude", corr_id="late", params={"timeout_ms": 300})
    assert late["error"]["code"] == "timeout"
    await one.unsubscribe()
