"""Story 2 with two workers: whoever speaks NATS has a completion, a stream, and the same answer again."""

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

from tests.e2e.instance import Instance, Said
from tests.support.eventually import eventually
from tests.support.listening import listen

pytestmark = pytest.mark.timeout(180)
ECHO = Path(__file__).parents[1] / "support" / "echo_worker.py"
MODEL = "claude-sonnet-4.5"
MESSAGES = [{"role": "user", "content": "Decompose: build auth"}]
REQUEST = {
    "run_id": "run-123",
    "node_id": "task-1",
    "corr_id": "c1",
    "model_id": MODEL,
    "input": {"messages": MESSAGES},
    "params": {"stream": True, "max_tokens": 2000},
}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """Two workers with the limits that everybody has; the model with a dot is an alias of the mock, with a price."""
    made = Instance(tmp_path_factory.mktemp("story") / "home", HTDAG_LLM_WORKER__HEARTBEAT_S="1")
    del made.env["HTDAG_LLM_WORKER__LIMITS"]
    words = (
        "--only",
        "llm-worker",
        "--scale",
        "llm-worker=2",
        "--model",
        "mock:text=Task+decomposition...,price=30/mtok",
    )
    made.up(*words)
    yield made
    made("down")
    assert made.refusals() == []


@pytest.fixture
async def client(instance: Instance) -> AsyncIterator[Client]:
    async with await nats.connect(instance.url) as connected:
        yield connected


async def ear(client: Client, subject: str) -> list[Any]:
    heard: list[Any] = []
    await listen(client, subject, lambda message: heard.append(json.loads(message.data)))
    return heard


async def ask(client: Client, subject: str, body: Any) -> bytes:
    return (await client.request(subject, json.dumps(body).encode(), timeout=20)).data


async def test_a_plain_nats_user_has_a_completion_a_stream_and_the_same_answer_again(instance, client):
    tokens = await ear(client, "llm.tokens.run-123.task-1")
    answers = await ear(client, "llm.resp.run-123.task-1")
    first = await ask(client, f"llm.req.{MODEL}", REQUEST)
    said = json.loads(first)
    assert "stream" not in said  # the first reply is the answer, no acknowledgement of a stream
    assert (said["corr_id"], said["output"], said["finish_reason"]) == ("c1", "Task decomposition...", "stop")
    used = said["usage"]
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
    await eventually(lambda: tokens and tokens[-1]["done"] and answers)
    assert [token["seq"] for token in tokens] == list(range(1, len(tokens) + 1))
    assert "".join(token["chunk"] for token in tokens) == said["output"]
    assert [answer["output"] for answer in answers] == [said["output"]]

    assert await ask(client, f"llm.req.{MODEL}", REQUEST) == first

    async def both_answers() -> Said | None:
        said = await asyncio.to_thread(instance, "llm", "ledger", "c1", "--json")
        return said if said.document["rows"][0]["answers"] == 2 else None

    told = await eventually(both_answers)
    (row,) = told.document["rows"]
    assert (row["status"], row["cost_usd_micros"]) == ("paid", said["cost_usd_micros"])
    assert row["reserved_usd_micros"] > row["cost_usd_micros"] > 0
    assert (told.document["calls"], told.document["reserved"]) == (1, 0)

    late = await asyncio.to_thread(instance, "llm", "tail", "run-123.task-1", "--from-seq", "2", "--json")
    assert [line["seq"] for line in late.lines] == [token["seq"] for token in tokens[1:]]


async def test_both_workers_beat_a_name_that_nobody_has_is_said_and_the_old_path_works(instance, client):
    beats = await ear(client, "llm.health")
    await eventually(lambda: len({beat["worker_id"] for beat in beats}) == 2 and len(beats) >= 4)
    unknown = json.loads(await ask(client, "llm.req.nosuch", {"input": {"messages": MESSAGES}}))
    assert unknown["ok"] is False
    assert {"class": "llm", "code": "unknown_model", "model": "nosuch"}.items() <= unknown["error"].items()
    old = json.loads(await ask(client, "ai.llm.request", {"model": "mock", "messages": MESSAGES}))
    assert old["output"]


async def test_a_foreign_worker_of_thirty_lines_conforms(instance, client):
    workers = [subprocess.Popen([sys.executable, str(ECHO), instance.url, "echo"]) for _ in range(2)]
    try:

        async def conforms() -> Any:
            said = await asyncio.to_thread(instance, "conformance", "worker", "--model", "echo", "--json")
            assert said.code == 0, said.out
            return said

        said = await eventually(conforms, timeout_s=60)
        # No price is known for it, and money is limited: that is noted, and everything else passes.
        assert {point["name"]: point["outcome"] for point in said.document["points"] if point["outcome"] != "pass"} == {
            "works behind llm-worker": "note"
        }
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
