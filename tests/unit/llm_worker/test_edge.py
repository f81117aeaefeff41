"""The public edge: one answer per request, whatever the broker says twice, and a bound on what waits to be stored."""

import asyncio

import msgspec
import pytest
import structlog

from contracts.streams import LLM_REQUESTS
from services.llm_worker.config import Config
from services.llm_worker.edge import PENDING_BYTES_MAX, Edge
from services.llm_worker.models import ModelTable
from services.llm_worker.resolving import Resolver
from services.runtime.bus import Bus, Message
from services.runtime.ids import CountingIds
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import INPUT, Crew


@pytest.fixture
async def edge(bus: Bus) -> Edge:
    crew = Crew(bus)
    crew.gate.open.set()
    await crew.worker.start()
    resolver = Resolver(ModelTable(Config(), {}))
    log = structlog.get_logger()
    edge = Edge(
        bus=bus,
        journal=crew.journal,
        resolver=resolver,
        config=Config(),
        ids=CountingIds(),
        log=log,
        reused=crew.cashier.reused,
    )
    await edge.start()
    return edge


def body(corr_id: str, text: str = "Say hi") -> bytes:
    messages = [{"role": "user", "content": text}]
    return msgspec.json.encode({**INPUT, "corr_id": corr_id, "input": {"messages": messages}})


async def test_a_write_whose_acknowledgement_was_lost_is_answered_once(bus, edge, monkeypatch):
    heard: list[Message] = []
    inbox = bus.inbox()
    await bus.subscribe(inbox, heard.append)
    store = bus.store

    def store_twice(subject, data, *, stream, **kwargs):
        if stream == LLM_REQUESTS:
            store(subject, data, stream=stream, **kwargs)
        return store(subject, data, stream=stream, **kwargs)

    monkeypatch.setattr(bus, "store", store_twice)
    bus.publish("llm.req.mock", body("c"), reply=inbox)
    await eventually(lambda: heard)
    await edge.finish(5)
    await bus.flush()
    assert len(heard) == 1
    monkeypatch.undo()
    # Who asks again at the same inbox wants to hear it again.
    bus.publish("llm.req.mock", body("c"), reply=inbox)
    await eventually(lambda: len(heard) == 2)
    assert heard[1].data == heard[0].data


async def test_the_edge_keeps_no_more_bytes_than_it_may(bus, edge, monkeypatch):
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(bus, "store", lambda *_, **__: asyncio.shield(never))
    heard: list[Message] = []
    inbox = bus.inbox()
    await bus.subscribe(inbox, heard.append)
    size = 4_000_000
    for number in range(PENDING_BYTES_MAX // size + 1):
        edge.take(Message("llm.req.mock", body(f"c{number}", "x" * size), {}, inbox))
    await eventually(lambda: heard)
    assert [msgspec.json.decode(message.data)["error"]["code"] for message in heard] == ["mailbox_full"]


@pytest.mark.parametrize("reply", ["htdag.v1.cmd.executor.run.r.cancel", "llm.req.mock"])
async def test_no_stranger_speaks_through_the_edge(bus, edge, reply):
    heard: list[Message] = []
    await bus.subscribe(reply, heard.append)
    edge.take(Message("llm.req.mock", body("good"), {}, reply))
    edge.take(Message("llm.req.mock", b"{no json", {}, reply))
    edge.take(Message("llm.req.mock", body("good"), {}, reply))
    await eventually(lambda: bus.last("HTDAG_LLM_RESP", "htdag.v1.llm.resp.adhoc-good.call"))
    await edge.finish(5)
    await bus.flush()
    assert heard == []


@pytest.mark.parametrize(
    ("data", "headers", "corr_id"),
    [
        (b"no json", {}, None),
        (b'{"input": {"messages": []}}', {"Nats-Msg-Id": "mine"}, "mine"),
        (b'{"input": {"messages": []}, "corr_id": "c"}', {}, "c"),
    ],
)
async def test_a_refused_answer_has_a_corr_id_too(bus, edge, data, headers, corr_id):
    heard: list[Message] = []
    inbox = bus.inbox()
    await bus.subscribe(inbox, heard.append)
    edge.take(Message("llm.req.mock", data, headers, inbox))
    await eventually(lambda: heard)
    said = msgspec.json.decode(heard[0].data)["corr_id"]
    assert said if corr_id is None else said == corr_id


@pytest.mark.parametrize(("deadline", "kept"), [("1700000000000", True), ("soon", False), ("9" * 40, False)])
async def test_the_deadline_of_an_asker_goes_with_the_request(bus, edge, deadline, kept):
    edge.take(Message("llm.req.mock", body("late"), {"Htdag-Deadline": deadline}, ""))
    await edge.finish(5)
    stored = await bus.last(LLM_REQUESTS, "htdag.v1.llm.req.mock")
    assert stored.headers.get("Htdag-Deadline") == (deadline if kept else None)
    if kept:

        async def answered() -> bool:
            return await bus.last("HTDAG_LLM_RESP", "htdag.v1.llm.resp.adhoc-late.call") is not None

        await eventually(answered)
        answer = await bus.last("HTDAG_LLM_RESP", "htdag.v1.llm.resp.adhoc-late.call")
        assert msgspec.json.decode(answer.data)["error"]["code"] == "timeout"


async def test_a_refusal_at_the_edge_says_the_attempt_and_a_call_by_the_old_path_has_one(bus, edge):
    heard: list[Message] = []
    inbox = bus.inbox()
    await bus.subscribe(inbox, heard.append)
    edge.take(Message("llm.req.mock", b'{"attempt": 2, "input": {"messages": []}}', {}, inbox))
    edge.take(Message("llm.req.mock", b'{"attempt": 0, "input": {"messages": [{"role": "user"}]}}', {}, inbox))
    edge.take(Message("ai.llm.request", b'{"model": "mock", "messages": [], "attempt": 3}', {}, inbox))
    old = msgspec.json.encode({**INPUT, "model": "mock", "attempt": 4})
    edge.take_legacy(Message("ai.llm.request", old, {}, inbox))
    await eventually(lambda: len(heard) == 4)
    assert [msgspec.json.decode(message.data)["attempt"] for message in heard] == [2, 1, 3, 4]
