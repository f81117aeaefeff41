"""What the journal gives beyond paying once: answers by content, live replays, big answers, the price of a stop."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from tests.e2e.instance import Instance
from tests.support.eventually import eventually
from tests.support.listening import listen

pytestmark = pytest.mark.timeout(120)
INPUT = {"messages": [{"role": "user", "content": "Say hi"}]}
TABLE = {"wordy": {"provider": "mock"}, "dear": {"provider": "mock"}}
BIG_WORDS = 100_000


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    home = tmp_path_factory.mktemp("journal") / "home"
    made = Instance(home, HTDAG_LLM_WORKER__MODELS=json.dumps(TABLE))
    made.up("--only", "llm-worker,executor,planner", "--sync", "1s")
    yield made
    made("down")
    assert made.refusals() == []


@pytest.fixture
async def client(instance: Instance) -> AsyncIterator[Client]:
    async with await nats.connect(instance.url) as connected:
        yield connected


async def ask(client: Client, model: str, **body: Any) -> Any:
    data = json.dumps({"input": INPUT, **body}).encode()
    return json.loads((await client.request(f"llm.req.{model}", data, timeout=30)).data)


PAID = {"mock": {"price": "0.01/call"}}


async def test_the_same_question_costs_nothing_where_that_is_allowed(client):
    first = await ask(client, "dear", corr_id="q1", params={"cache": True, **PAID})
    assert (first["cost_usd_micros"], first.get("cached")) == (10_000, None)
    again = await ask(client, "dear", corr_id="q2", params={"cache": True, "stream": True, "timeout_ms": 9_000, **PAID})
    assert (again["output"], again["corr_id"]) == (first["output"], "q2")
    assert (again["cost_usd_micros"], again["cached"], again["cached_from"]) == (0, True, "q1")
    # An option of the request: who does not allow it asks, and another question is another one.
    fresh = await ask(client, "dear", corr_id="q3", params=PAID)
    other = await ask(client, "dear", corr_id="q4", params={"cache": True, "seed": 7, **PAID})
    assert [answer.get("cached") for answer in (fresh, other)] == [None, None]
    # A cached answer is journaled like any other.
    assert await ask(client, "dear", corr_id="q2", params={"cache": True, **PAID}) == again


async def test_what_failed_is_not_kept(client):
    for number in range(2):
        wrong = await ask(client, "dear", corr_id=f"w{number}", params={"cache": True, "mock": {"malformed": True}})
        assert wrong["error"]["code"] == "provider_malformed"


async def test_a_live_replay_pays_again_and_each_names_the_other(instance, client):
    first = await ask(client, "dear", run_id="r", node_id="t", corr_id="l1", params=PAID)
    free = await asyncio.to_thread(instance, "llm", "replay", "l1", "--json")
    assert (free.document["paid"], free.document["output"]) == (False, first["output"])
    assert "live_replays" not in free.document
    live = await asyncio.to_thread(instance, "llm", "replay", "l1", "--live", "--json")
    assert live.code == 0, live.err
    assert (live.document["paid"], live.document["cost_usd_micros"]) == (True, 10_000)
    assert live.document["replay_of"] == "l1"
    assert live.document["corr_id"] != "l1"
    assert live.document["output"] == first["output"]
    shown = await asyncio.to_thread(instance, "llm", "replay", "l1", "--run", "r", "--node", "t", "--json")
    assert shown.document["live_replays"] == [live.document["corr_id"]]
    gone = await asyncio.to_thread(instance, "llm", "replay", "nosuch", "--live", "--json")
    assert gone.document["error"]["code"] == "not_found"


async def test_a_big_answer_goes_by_reference_and_people_see_all_of_it(instance, client, tmp_path):
    text = "grüße-an-alle-die-weit-lesen/" * BIG_WORDS
    params = {"mock": {"text": "grüße-an-alle-die-weit-lesen/", "repeat": BIG_WORDS}}
    answer = await ask(client, "wordy", run_id="big", node_id="n", corr_id="b1", params=params)
    ref = answer["output_ref"]
    assert (ref["bytes"], ref["sha256"]) == (len(text.encode()), hashlib.sha256(text.encode()).hexdigest())
    assert text.startswith(answer["output"])
    assert len(json.dumps(answer)) < 100_000
    # Any client of an object store reads it.
    store = await client.jetstream().object_store(ref["bucket"])
    assert (await store.get(ref["name"])).data == text.encode()
    shown = await asyncio.to_thread(instance, "llm", "replay", "b1", "--json")
    assert shown.document["output"] == text
    assert "output_ref" not in shown.document
    plan = tmp_path / "plan.json"
    nodes = {
        "say": {"type": "llm", "model": "wordy", "prompt": "x", "params": params},
        "talk": {"type": "agent", "model": "wordy", "params": params},
    }
    plan.write_text(json.dumps([{"id": name, "description": name, "node": node} for name, node in nodes.items()]))
    ran = await asyncio.to_thread(instance, "run", str(plan), "--run-id", "bigrun", "--json")
    assert ran.code == 0, ran.err
    result = await asyncio.to_thread(instance, "runs", "result", "bigrun", "--json")
    assert result.document["results"]["say"]["output"] == text
    assert result.document["results"]["talk"]["output"] == text
    one = await asyncio.to_thread(instance, "tasks", "result", "say", "--run", "bigrun", "--json")
    assert one.document["output"] == text
    replayed = await asyncio.to_thread(instance, "runs", "replay", "bigrun", "--json")
    assert replayed.code == 0, replayed.out


async def test_a_stop_says_what_was_used(client):
    seen = asyncio.Event()
    await listen(client, "llm.tokens.stop.n", lambda _: seen.set())
    params = {"stream": True, "mock": {"stream_delay": "100ms", "tokens": 100}}
    asking = asyncio.create_task(ask(client, "wordy", run_id="stop", node_id="n", corr_id="s1", params=params))
    await seen.wait()
    await client.request("htdag.v1.llm-worker.llm.cancel", b'{"corr_id":"s1"}', timeout=5)
    error = (await asking)["error"]
    assert error["code"] == "cancelled"
    assert 0 < error["usage"]["completion_tokens"] < 100
    assert error["usage"]["prompt_tokens"] > 0
    assert (error["usage_estimated"], error["cost_usd_micros"]) == (True, 0)  # as the ledger has it


async def test_a_stream_is_taken_up_where_it_was_left(instance, client):
    params = {"stream": True, "mock": {"tokens": 5}}
    answer = await ask(client, "wordy", run_id="st", node_id="n", params=params)

    async def kept() -> Any:
        body = json.dumps({"run_id": "st", "node_id": "n", "from_seq": 3}).encode()
        reply = await client.request("htdag.v1.llm-worker.llm.tail", body, timeout=5)
        tokens = json.loads(reply.data)["value"]
        return tokens if tokens and tokens[-1]["done"] else None

    tokens = await eventually(kept)
    assert [token["seq"] for token in tokens] == [3, 4, 5, 6]
    assert answer["output"].endswith("".join(token["chunk"] for token in tokens))
