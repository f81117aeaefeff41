"""Request verbs on a real broker: replies, refusals, discovery, many at once, draining."""

import asyncio
from typing import Any

import msgspec
import nats
import pytest

from contracts import reply
from contracts.codec import Undecodable, UnknownType
from contracts.errors import Rejected, failure
from contracts.requests import RunRef
from contracts.verbs import verbs_of
from services.runtime import rpc as rpc_module
from services.runtime import telemetry
from services.runtime.clock import SystemClock
from services.runtime.ids import CountingIds
from services.runtime.metrics import Metrics
from services.runtime.rpc import DEFERRED, Caller, Rpc
from tests.support.eventually import eventually
from tests.support.listening import listen

GET = "htdag.v1.executor.run.get"
TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Lines(list):
    """Keeps what was logged."""

    def info(self, event: str, **fields: Any) -> None:
        self.append((event, fields))

    warning = error = info


@pytest.fixture
async def client(nats_server):
    connection = await nats.connect(nats_server.url)
    yield connection
    await connection.close()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def serve(nats_server, lines, metrics):
    """Start an Rpc of the executor with one handler for `run.get`."""
    started: list[tuple[Rpc, Any]] = []

    async def serve(handler) -> Rpc:
        connection = await nats.connect(nats_server.url)
        served = Rpc(connection, service="executor", version="0.1.0", metrics=metrics, log=lines,
                     clock=SystemClock(), ids=CountingIds(), metadata={"instance": "executor-1"})  # fmt: skip
        served.handle("run", "get", handler)
        await served.start()
        started.append((served, connection))
        return served

    yield serve
    for served, connection in started:
        await served.stop()
        await connection.close()


async def ask(client, body: bytes = b'{"run_id":"r1"}', headers: dict[str, str] | None = None) -> Any:
    message = await client.request(GET, body, timeout=5, headers=headers)
    return msgspec.json.decode(message.data)


async def echo(request: RunRef, caller: Caller) -> dict[str, str]:
    return {"run_id": request.run_id, "by": caller.by, "corr": caller.corr, "id": caller.message_id}


async def test_a_reply_is_the_value_in_its_envelope(client, serve, metrics):
    await serve(echo)
    assert await ask(client) == {
        "ok": True, "value": {"run_id": "r1", "by": "anonymous", "corr": "id-1", "id": "id-1"},
    }  # fmt: skip
    await eventually(
        lambda: metrics.value("htdag_requests_total", service="executor", verb="run.get", outcome="ok") == 1
    )


async def test_principal_correlation_and_message_id_come_from_the_headers(client, serve):
    await serve(echo)
    answer = await ask(client, headers={"Htdag-By": "ann", "Htdag-Corr": "c1", "Nats-Msg-Id": "m1"})
    assert answer["value"] == {"run_id": "r1", "by": "ann", "corr": "c1", "id": "m1"}


async def test_trace_context_reaches_the_handler(client, serve):
    async def handler(request: RunRef, caller: Caller) -> str:
        return telemetry.current()

    await serve(handler)
    assert (await ask(client, headers={"traceparent": TRACEPARENT}))["value"] == TRACEPARENT


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [(b"{", "bad_json", None), (b"[]", "bad_request", ""), (b'{"run_id":1}', "bad_request", "run_id"),
     (b"", "bad_request", "run_id")],
)  # fmt: skip
async def test_a_wrong_body_is_refused_before_the_handler(client, serve, body, code, field, metrics):
    await serve(echo)
    error = (await ask(client, body))["error"]
    assert (error["code"], error.get("field")) == (code, field)
    assert error["class"] == "bad_request"
    await eventually(
        lambda: metrics.value("htdag_requests_total", service="executor", verb="run.get", outcome=code) == 1
    )


async def test_a_header_that_is_too_long_is_refused(client, serve):
    await serve(echo)
    assert (await ask(client, headers={"Htdag-By": "x" * 300}))["error"]["field"] == "Htdag-By"


async def test_a_refusal_keeps_its_code_and_detail(client, serve):
    async def handler(request: RunRef, caller: Caller) -> None:
        raise Rejected("run_not_found", run_id=request.run_id)

    await serve(handler)
    assert (await ask(client))["error"] == failure("run_not_found", run_id="r1")


async def test_the_refusal_of_another_service_is_passed_on(client, serve):
    async def handler(request: RunRef, caller: Caller) -> None:
        raise reply.RemoteRejected({"class": "new", "code": "of_a_newer_version", "message": "x"})

    await serve(handler)
    assert (await ask(client))["error"]["code"] == "of_a_newer_version"


@pytest.mark.parametrize("broken", [ValueError("the password is hunter2"), TimeoutError("inner"), object()])
async def test_a_bug_shows_the_caller_an_id_and_the_log_the_rest(client, serve, broken, lines):
    async def handler(request: RunRef, caller: Caller) -> Any:
        if isinstance(broken, Exception):
            raise broken
        return broken  # cannot be encoded

    await serve(handler)
    error = (await ask(client))["error"]
    assert (error["code"], error["class"]) == ("internal", "internal")
    assert "hunter2" not in str(error)
    ((event, fields),) = lines
    assert (event, fields["error_id"], fields["verb"]) == ("request_failed", error["id"], "run.get")


@pytest.mark.parametrize("unreadable", [Undecodable("no commit"), UnknownType("run.unknown.v9")])
async def test_a_stored_message_that_cannot_be_read_is_told_as_such(client, serve, unreadable, lines):
    async def get(request: RunRef, caller: Caller) -> Any:
        raise unreadable

    await serve(get)
    error = (await ask(client))["error"]
    assert (error["code"], error["class"]) == ("poison", "internal")
    assert any(fields.get("error_id") == error["id"] for _, fields in lines)


async def test_a_handler_has_a_deadline(client, serve, monkeypatch):
    monkeypatch.setattr(rpc_module, "REQUEST_TIMEOUT_S", 0.05)

    async def handler(request: RunRef, caller: Caller) -> None:
        await asyncio.Event().wait()

    await serve(handler)
    assert (await ask(client))["error"]["code"] == "timeout"


async def test_an_answer_that_the_broker_cannot_carry_is_too_large(client, serve):
    async def handler(request: RunRef, caller: Caller) -> str:
        return "x" * (8 << 20)

    await serve(handler)
    assert (await ask(client))["error"]["code"] == "too_large"


async def test_a_deferred_answer_comes_from_somebody_else(client, serve):
    waiting: list[Caller] = []

    async def handler(request: RunRef, caller: Caller) -> Any:
        waiting.append(caller)
        return DEFERRED

    served = await serve(handler)
    asking = asyncio.create_task(ask(client))
    await eventually(lambda: waiting and served.in_flight == 0)
    await client.publish(waiting[0].reply, reply.ok("later"))
    assert (await asking)["value"] == "later"


async def test_a_slow_request_does_not_hold_up_the_others(client, serve):
    release = asyncio.Event()

    async def handler(request: RunRef, caller: Caller) -> str:
        if request.run_id == "slow":
            await release.wait()
        return request.run_id

    served = await serve(handler)
    slow = asyncio.create_task(ask(client, b'{"run_id":"slow"}'))
    await eventually(lambda: served.in_flight == 1)
    assert (await ask(client))["value"] == "r1"
    release.set()
    assert (await slow)["value"] == "slow"


async def test_no_more_run_at_once_than_allowed_and_what_overflows_is_told(client, serve, monkeypatch):
    monkeypatch.setattr(rpc_module, "REQUESTS_AT_ONCE_MAX", 2)
    monkeypatch.setattr(rpc_module, "REQUESTS_HELD_MAX", 4)
    release, at_once = asyncio.Event(), 0

    async def handler(request: RunRef, caller: Caller) -> int:
        nonlocal at_once
        at_once += 1
        await release.wait()
        return at_once

    served = await serve(handler)
    asking = [asyncio.create_task(ask(client)) for _ in range(4)]
    await eventually(lambda: served.in_flight == 4)
    assert (await ask(client))["error"]["code"] == "mailbox_full"
    assert at_once == 2
    release.set()
    assert all(answer["ok"] for answer in await asyncio.gather(*asking))


async def test_the_bytes_that_wait_are_bounded(client, serve, monkeypatch):
    monkeypatch.setattr(rpc_module, "BYTES_HELD_MAX", 1000)
    release = asyncio.Event()

    async def handler(request: RunRef, caller: Caller) -> str:
        await release.wait()
        return "ok"

    served = await serve(handler)
    body = b'{"run_id":"r1","pad":"' + b"x" * 900 + b'"}'
    first = asyncio.create_task(ask(client, body))
    await eventually(lambda: served.in_flight == 1)
    assert (await ask(client, body))["error"]["code"] == "mailbox_full"
    release.set()
    assert (await first)["ok"]


async def test_draining_answers_what_was_taken_and_takes_no_more(client, serve):
    release = asyncio.Event()

    async def handler(request: RunRef, caller: Caller) -> str:
        await release.wait()
        return "answered"

    served = await serve(handler)
    taken = [asyncio.create_task(ask(client)) for _ in range(50)]
    await eventually(lambda: served.in_flight == 50)
    draining = asyncio.create_task(served.drain())

    async def nobody_answers() -> bool:
        try:
            return (await ask(client, b"{}"))["error"]["code"] != "bad_request"
        except nats.errors.NoRespondersError:
            return True

    await eventually(nobody_answers)
    release.set()
    await draining
    assert [answer["value"] for answer in await asyncio.gather(*taken)] == ["answered"] * 50


@pytest.mark.parametrize("elsewhere", ["htdag.v1.evt.executor.run.r1", "_INBOXES.x", "_INBOX"])
async def test_an_answer_goes_to_an_inbox_and_to_no_other_subject(client, serve, elsewhere, lines):
    """Whoever may only ask would have us say it where we alone may write, for instance in our own log."""
    await serve(echo)
    heard: list[str] = []
    for subject in (elsewhere, "_INBOX_agent.a"):
        await listen(client, subject, lambda message: heard.append(message.subject))
    for asked in ("$SRV.PING", "$SRV.INFO.executor", "$SRV.STATS"):
        await client.publish(asked, b"", reply=elsewhere)
        assert (await client.request(asked, timeout=5)).data
    for there in (elsewhere, "_INBOX_agent.a"):
        await client.publish(GET, b'{"run_id":"r1"}', reply=there)
    await eventually(lambda: heard == ["_INBOX_agent.a"])
    told = [fields for event, fields in lines if event == "reply_not_inbox"]
    assert told == [{"verb": "run.get", "reply": elsewhere}]


async def test_no_request_is_lost_when_one_of_two_replicas_drains(client, serve):
    first, _ = await serve(echo), await serve(echo)
    asking = [asyncio.create_task(ask(client)) for _ in range(300)]
    await asyncio.sleep(0)
    await first.drain()
    asking += [asyncio.create_task(ask(client)) for _ in range(50)]
    assert all(answer["ok"] for answer in await asyncio.gather(*asking))


async def test_what_is_cut_is_told_so(client, serve):
    served = await serve(lambda request, caller: asyncio.Event().wait())
    asking = asyncio.create_task(ask(client))
    await eventually(lambda: served.in_flight == 1)
    await served.stop()
    assert (await asking)["error"]["code"] == "service_unavailable"


async def test_the_service_is_discoverable_with_true_statistics(client, serve):
    await serve(echo)
    await ask(client)
    await ask(client, b"[]")
    ping = msgspec.json.decode((await client.request("$SRV.PING.executor", timeout=5)).data)
    assert ping["metadata"]["instance"] == "executor-1"
    info = msgspec.json.decode((await client.request(f"$SRV.INFO.executor.{ping['id']}", timeout=5)).data)
    assert [(one["subject"], one["queue_group"]) for one in info["endpoints"]] == [(GET, "executor")]
    stats = msgspec.json.decode((await client.request("$SRV.STATS", timeout=5)).data)["endpoints"][0]
    assert (stats["num_requests"], stats["num_errors"], stats["last_error"]) == (2, 1, "bad_request")
    assert stats["processing_time"] > 0


async def test_only_verbs_of_the_contracts_can_be_bound(serve):
    served = await serve(echo)
    for noun, verb in (("run", "explode"), ("goal", "submit"), ("run", "get")):
        with pytest.raises(KeyError):
            served.handle(noun, verb, echo)
    for spec in verbs_of("executor"):
        if (spec.noun, spec.verb) != ("run", "get"):
            served.handle(spec.noun, spec.verb, echo)
