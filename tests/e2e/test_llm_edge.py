"""What anyone with a plain NATS client sees of llm-worker: real worker processes, nats-py, and none of our code."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.runtime.nats_client import settle
from tests.support.eventually import eventually
from tests.support.listening import listen
from tests.support.service_process import ServiceProcess

INPUT = {"messages": [{"role": "user", "content": "Decompose: build auth"}]}
REDELIVERY_S = 45


class Ear:
    """Everything that comes on a subject."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []

    @classmethod
    async def on(cls, client: Client, subject: str) -> "Ear":
        ear = cls()
        await listen(client, subject, ear.messages.append)
        return ear

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self.messages]


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


async def ask(client: Client, subject: str, body: Any, timeout_s: float = 20.0) -> dict[str, Any]:
    return json.loads((await client.request(subject, encoded(body), timeout=timeout_s)).data)


async def publish_with_inbox(client: Client, subject: str, body: Any) -> Ear:
    """Publish with a reply inbox and keep everything that inbox ever gets."""
    inbox = client.new_inbox()
    ear = await Ear.on(client, inbox)
    await client.publish(subject, encoded(body), reply=inbox)
    return ear


async def metric(worker: ServiceProcess, name: str) -> float:
    """The sum of a counter over its labels."""
    url = await worker.ready()
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def test_the_first_and_only_reply_is_the_answer_and_the_journal_shows_it_once(start, client):
    await start()
    journal = await Ear.on(client, "llm.resp.run-123.task-1")
    body = {"run_id": "run-123", "node_id": "task-1", "corr_id": "c1", "model_id": "mock", "input": INPUT}
    inbox = await publish_with_inbox(client, "llm.req.mock", body)
    await eventually(lambda: journal.messages and inbox.messages)
    answer = inbox.bodies[0]
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert {"run_id", "node_id", "corr_id", "attempt", "model_id", "model_used", "output", "tool_calls"} <= set(answer)
    again = await publish_with_inbox(client, "llm.req.mock", body)
    await eventually(lambda: again.messages)
    assert again.messages[0].data == inbox.messages[0].data == journal.messages[0].data
    await settle(client)
    assert (len(inbox.messages), len(again.messages), len(journal.messages)) == (1, 1, 1)


async def test_tokens_count_from_one_without_gap_and_come_before_the_answer(start, client):
    await start()
    heard = await Ear.on(client, "llm.*.r.t")
    body = {"run_id": "r", "node_id": "t", "input": INPUT, "params": {"stream": True}}
    answer = await ask(client, "llm.req.mock:stream_delay=2ms", body)
    await eventually(lambda: "output" in heard.bodies[-1])
    *tokens, last = heard.bodies
    assert [token["seq"] for token in tokens] == list(range(1, len(tokens) + 1))
    assert [token["done"] for token in tokens] == [False] * (len(tokens) - 1) + [True]
    assert "".join(token["chunk"] for token in tokens) == answer["output"] == last["output"]
    assert tokens[-1]["chunk"] == ""
    whole = await ask(client, "llm.req.mock", {**body, "params": {}})
    assert whole["output"] == answer["output"]
    kept = await ask(client, "htdag.v1.llm-worker.llm.tail", {"run_id": "r", "node_id": "t", "from_seq": 3})
    assert kept["value"] == tokens[2:]


async def test_a_dotted_model_without_a_key_is_answered_by_the_local_model_and_says_so(start, client):
    worker = await start()
    body = {"model_id": "claude-sonnet-4.5", "input": INPUT, "params": {"max_tokens": 8, "temperature": 0.0}}
    answer = await ask(client, "llm.req.claude-sonnet-4.5", body, timeout_s=50)
    assert (answer["model_id"], answer["model_used"]) == ("claude-sonnet-4.5", "smollm2")
    assert answer["output"]
    assert answer["cost_usd_micros"] == 0
    views = {view["id"]: view for view in (await ask(client, "htdag.v1.llm-worker.llm.models", {}))["value"]}
    assert views["claude-sonnet-4.5"]["resolves_to"] == "smollm2"
    assert "ANTHROPIC_API_KEY" in views["claude-sonnet-4.5"]["note"]
    assert worker.tail().count("stand_in_models") == 1
    resident_kb = next(
        int(line.split()[1]) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines() if "VmHWM" in line
    )
    assert resident_kb < 450 * 1024


async def test_without_weights_the_local_model_says_what_is_missing(start, client):
    worker = await start(HTDAG_LOCAL_MODEL="/nowhere/model.gguf")
    for name in ("smollm2", "claude-sonnet-4.5"):
        error = (await ask(client, f"llm.req.{name}", {"input": INPUT}))["error"]
        assert error["code"] == "model_missing"
        assert "htdag models pull" in error["hint"]
    views = {view["id"]: view for view in (await ask(client, "htdag.v1.llm-worker.llm.models", {}))["value"]}
    assert views["smollm2"]["available"] is False
    assert "HTDAG_LOCAL_MODEL" in views["smollm2"]["note"]
    assert views["mock"].get("available", True)
    assert worker.tail().count('"model_missing"') == 1


WRONG = [
    ("llm.req.mock", b"{no json", "bad_json"),
    ("llm.req.mock", {"input": {}}, "invalid_request"),
    ("llm.req.mock", {"model_id": "other", "input": INPUT}, "model_mismatch"),
    ("llm.req.nosuch", {"input": INPUT}, "unknown_model"),
    ("llm.req.mock", {"run_id": "a b", "input": INPUT}, "bad_id"),
    ("llm.req.mock", {"input": {"messages": [{"role": "user", "content": "x" * 5_000_000}]}}, "too_large"),
    ("ai.llm.request", {"messages": INPUT["messages"]}, "missing_param"),
    ("llm.req.openai/gpt-4o", {"input": INPUT}, "provider_missing"),
    ("llm.req.mock:hang", {"input": INPUT, "params": {"timeout_ms": 100}}, "timeout"),
    ("llm.req.mock:malformed", {"input": INPUT}, "provider_malformed"),
    ("llm.req.mock:fail=provider_rejected", {"input": INPUT}, "provider_rejected"),
]


async def test_every_wrong_payload_has_its_own_code(start, client):
    await start()
    for subject, body, code in WRONG:
        answer = await ask(client, subject, body)
        assert answer["error"]["code"] == code, (subject, answer)
        assert answer["error"]["class"]
    refused = await ask(client, "llm.req.nosuch", {"input": INPUT, "corr_id": "k"})
    assert (refused["ok"], refused["corr_id"], refused["error"]["model"]) == (False, "k", "nosuch")
    # A refused corr_id is not spent.
    assert (await ask(client, "llm.req.mock", {"input": INPUT, "corr_id": "k"}))["output"]


async def test_unknown_fields_the_old_path_and_auto_are_answered(start, client):
    await start(**{"HTDAG_LLM_WORKER__ALIASES": '{"gemini-1.5-flash":"mock"}'})
    assert (await ask(client, "llm.req.mock", {"input": INPUT, "x": 1}))["output"]
    assert (await ask(client, "ai.llm.request", {"model": "mock", **INPUT}))["model_used"] == "mock"
    auto = await ask(client, "llm.req.auto", {"input": INPUT})
    assert (auto["model_id"], auto["model_used"]) == ("auto", "mock")


async def test_without_a_worker_the_caller_knows_at_once(nats_server, client):
    with pytest.raises(nats.errors.NoRespondersError):
        await client.request("llm.req.mock", encoded({"input": INPUT}), timeout=5)


async def test_a_plain_publish_is_answered_in_the_journal(start, client):
    await start()
    journal = await Ear.on(client, "llm.resp.r.*")
    await client.publish("llm.req.mock", encoded({"run_id": "r", "node_id": "good", "input": INPUT}))
    await client.publish("llm.req.mock", encoded({"run_id": "r", "node_id": "bad", "input": {}}))
    await eventually(lambda: len(journal.messages) == 2)
    by_node = {body["node_id"]: body for body in journal.bodies}
    assert by_node["good"]["output"]
    assert by_node["bad"]["error"]["code"] == "invalid_request"


async def test_the_same_call_asked_twice_at_once_is_paid_once(start, client):
    workers = [await start() for _ in range(2)]
    body = {"input": INPUT, "corr_id": "twin", "run_id": "r", "node_id": "t"}
    inboxes = [await publish_with_inbox(client, "llm.req.mock:delay=300ms", body) for _ in range(4)]
    await eventually(lambda: all(inbox.messages for inbox in inboxes))
    assert len({inbox.messages[0].data for inbox in inboxes}) == 1
    assert sum([await metric(worker, "htdag_llm_requests_total") for worker in workers]) == 1


async def test_an_error_that_may_pass_is_tried_again_when_asked_again(start, client):
    worker = await start()
    body = {"input": INPUT, "corr_id": "retry", "run_id": "r", "node_id": "t"}
    # Three tries each time it is asked; the fourth would succeed.
    assert (await ask(client, "llm.req.mock:fail_first=3", body))["error"]["code"] == "provider_error"
    again = await ask(client, "llm.req.mock:fail_first=3", body)
    assert again["output"]
    assert (await ask(client, "llm.req.mock:fail_first=3", body)) == again
    replay = await ask(client, "htdag.v1.llm-worker.llm.replay", {"corr_id": "retry", "run_id": "r", "node_id": "t"})
    assert replay["value"] == {**again, "paid": False}
    assert await metric(worker, "htdag_llm_requests_total") == 2


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["after_answer", "after_journal", "after_reply"])
async def test_a_worker_killed_between_answer_and_ack_costs_no_second_payment(start, client, point):
    doomed = await start(fault=f"llm_worker.{point}")
    journal = await Ear.on(client, "llm.resp.r.t")
    body = {"input": INPUT, "corr_id": "c", "run_id": "r", "node_id": "t"}
    inbox = await publish_with_inbox(client, "llm.req.mock", body)
    await eventually(lambda: doomed.dead)
    heir = await start()
    await eventually(lambda: inbox.messages, timeout_s=REDELIVERY_S)
    again = await ask(client, "llm.req.mock", body)
    assert again == inbox.bodies[0]
    assert len(journal.messages) == 1
    # Only what never reached the journal is called again: nobody can know that it was answered.
    assert await metric(heir, "htdag_llm_requests_total") == (1 if point == "after_answer" else 0)


@pytest.mark.timeout(120)
async def test_a_request_outlives_the_worker_that_had_it(start, client):
    first = await start()
    inbox = await publish_with_inbox(client, "llm.req.mock:delay=600ms", {"input": INPUT, "corr_id": "c"})
    await eventually(lambda: metric(first, "htdag_llm_in_flight"))
    first.kill()
    await start()
    await eventually(lambda: inbox.messages, timeout_s=REDELIVERY_S)
    assert inbox.bodies[0]["output"]


async def test_the_same_call_under_another_name_gets_the_same_answer(start, client):
    await start()
    slow = {"run_id": "r1", "node_id": "n1", "corr_id": "shared", "model_id": "mock:delay=300ms", "input": INPUT}
    first = await publish_with_inbox(client, "llm.req.mock:delay=300ms", slow)
    while_it_runs = await publish_with_inbox(client, "llm.req.mock:delay=300ms", {**slow, "run_id": "r2"})
    await eventually(lambda: first.messages and while_it_runs.messages, timeout_s=10)
    later = await ask(client, "llm.req.mock:delay=300ms", {**slow, "node_id": "n9", "attempt": 2})
    assert later == first.bodies[0] == while_it_runs.bodies[0]


async def test_a_call_that_nobody_waits_for_any_more_is_not_paid(start, client):
    worker = await start()
    heard = await Ear.on(client, "llm.resp.late.n")
    body = {"run_id": "late", "node_id": "n", "corr_id": "too-late", "input": INPUT}
    headers = {"Nats-Msg-Id": "too-late", "Htdag-Deadline": "1700000000000"}
    await client.jetstream().publish("htdag.v1.llm.req.mock", encoded(body), headers=headers)
    await eventually(lambda: heard.messages)
    assert heard.bodies[0]["error"]["code"] == "timeout"
    assert await metric(worker, "htdag_llm_requests_total") == 0


async def test_a_terminated_worker_finishes_what_it_has_and_says_goodbye(start, client):
    worker = await start()
    health = await Ear.on(client, "llm.health")
    body = {"run_id": "r", "node_id": "t", "input": INPUT, "params": {"stream": True}}
    tokens = await Ear.on(client, "llm.tokens.r.t")
    inbox = await publish_with_inbox(client, "llm.req.mock:stream_delay=30ms", body)
    await eventually(lambda: tokens.messages)
    code = await asyncio.to_thread(worker.terminate)
    await eventually(lambda: inbox.messages)
    assert code == 0
    assert tokens.bodies[-1]["done"]
    assert inbox.bodies[0]["output"] == "".join(token["chunk"] for token in tokens.bodies)
    assert [beat["status"] for beat in health.bodies][-2:] == ["draining", "down"]


@pytest.mark.timeout(90)
async def test_what_a_stopping_worker_cannot_finish_goes_to_another_at_once(start, client):
    first = await start(HTDAG_CORE__DRAIN_S="1")
    inbox = await publish_with_inbox(client, "llm.req.mock:delay=6s", {"input": INPUT, "corr_id": "long"})
    await eventually(lambda: metric(first, "htdag_llm_in_flight"))
    second = await start()
    await asyncio.to_thread(first.terminate)
    # It was given back, so it does not wait for the acknowledgement deadline.
    await eventually(lambda: inbox.messages, timeout_s=14)
    assert inbox.bodies[0]["output"]
    assert await metric(second, "htdag_llm_requests_total") == 1


async def test_a_call_can_be_stopped_on_whichever_worker_has_it(start, client):
    for _ in range(2):
        await start()
    body = {"run_id": "r", "node_id": "t", "corr_id": "c", "input": INPUT, "params": {"stream": True}}
    tokens = await Ear.on(client, "llm.tokens.r.t")
    inbox = await publish_with_inbox(client, "llm.req.mock:stream_delay=20ms,tokens=2000", body)
    await eventually(lambda: tokens.messages)
    assert (await ask(client, "htdag.v1.llm-worker.llm.cancel", {"corr_id": "c"}))["value"] is True
    await eventually(lambda: inbox.messages)
    assert inbox.bodies[0]["error"]["code"] == "cancelled"
    assert tokens.bodies[-1]["done"]
    assert (await ask(client, "htdag.v1.llm-worker.llm.cancel", {"corr_id": "c"}))["value"] is False


async def test_workers_beat_share_the_work_and_are_listed(start, client):
    health = await Ear.on(client, "llm.health")
    workers = [await start(HTDAG_LLM_WORKER__HEARTBEAT_S="1") for _ in range(2)]
    await asyncio.gather(
        *(ask(client, "llm.req.mock:delay=5ms", {"input": INPUT, "corr_id": f"c{number}"}) for number in range(60))
    )
    shares = [await metric(worker, "htdag_llm_requests_total") for worker in workers]
    assert sum(shares) == 60
    assert all(shares)

    def heard() -> set[str]:
        return {beat["worker_id"] for beat in health.bodies}

    await eventually(lambda: len(heard()) == 2)
    # Each has begun before the other's next beat, so after one more of each both know both.
    health.messages.clear()
    await eventually(lambda: len(heard()) == 2)
    beat = health.bodies[-1]
    assert set(beat) == {"worker_id", "at", "status", "models", "in_flight", "every_s"}
    assert {"mock", "smollm2", "claude-sonnet-4.5"} <= set(beat["models"])
    workers[0].kill()

    async def one_is_dead() -> bool:
        views = (await ask(client, "htdag.v1.llm-worker.llm.workers", {}))["value"]
        assert sorted(view["status"] for view in views) == ["dead", "up"], views
        return True

    await eventually(one_is_dead, timeout_s=20)


async def test_the_broker_may_die_while_a_call_is_under_way(start, client, nats_server):
    await start()
    body = {"run_id": "r", "node_id": "t", "corr_id": "c", "input": INPUT}
    inbox = await publish_with_inbox(client, "llm.req.mock:delay=500ms", body)
    await eventually(lambda: ask(client, "htdag.v1.llm-worker.llm.workers", {}))
    nats_server.kill()
    nats_server.start()
    # Whoever was away when the answer came asks again: it stands in the journal.

    async def answered() -> str:
        try:
            return (await ask(client, "llm.req.mock:delay=500ms", body, timeout_s=2))["output"]
        except (nats.errors.Error, OSError) as error:
            raise AssertionError(repr(error)) from error

    assert await eventually(answered, timeout_s=20)
    assert len(inbox.messages) <= 1


@pytest.mark.timeout(180)
async def test_a_broker_that_was_away_for_long_costs_no_second_payment(start, client, nats_server):
    workers = [await start() for _ in range(2)]
    journal = await Ear.on(client, "llm.resp.r.*")
    for number in range(8):
        body = {"run_id": "r", "node_id": f"n{number}", "corr_id": f"c{number}", "input": INPUT}
        await client.publish("llm.req.mock:delay=20s", encoded(body))

    async def under_way() -> bool:
        return sum([await metric(worker, "htdag_llm_in_flight") for worker in workers]) == 8

    await eventually(under_way)
    nats_server.kill()
    # Longer than the acknowledgement deadline: afterwards the broker gives the requests to whoever asks first.
    back_s = time.monotonic() + 12
    await eventually(lambda: time.monotonic() > back_s, timeout_s=20)
    nats_server.start()
    await eventually(lambda: len({body["corr_id"] for body in journal.bodies}) == 8, timeout_s=40)

    async def nothing_is_left() -> bool:
        info = await client.jetstream().consumer_info("HTDAG_LLM_REQ", "llm-worker")
        flying = [await metric(worker, "htdag_llm_in_flight") for worker in workers]
        return info.num_ack_pending == 0 and not any(flying)

    await eventually(nothing_is_left, timeout_s=60)
    assert sum([await metric(worker, "htdag_llm_requests_total") for worker in workers]) == 8
