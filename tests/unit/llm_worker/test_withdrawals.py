"""The wish that a call be stopped outlives all that heard it: whoever takes the call over finds it, and asks nobody."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import structlog

from contracts.errors import Rejected
from contracts.ledger import LlmPaid
from contracts.requests import CorrRef
from contracts.streams import EVENTS_LLM_WORKER, LLM_REQUESTS, LLM_WITHDRAWALS
from contracts.subjects import LLM_CANCEL, llm_withdrawn
from services.llm_worker.backlog import Backlog
from services.llm_worker.handlers import Handlers
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.decider import Reserve
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.opening import CODEC
from services.llm_worker.worker import CONSUMER
from services.runtime import nats_client, provision
from services.runtime.bus import Bus, Message
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.unit.llm_worker.crew import INPUT, Crew

WORST = 100_000
"""What the dead worker held."""
SOMEBODY: Any = None
BODY = msgspec.json.encode({"run_id": "r", "node_id": "n-c", "corr_id": "c", "input": INPUT})


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    bus = Bus(await nats_client.connect(nats_server.url, name="test"))
    await bus.start()
    await provision.apply(bus)
    yield bus
    await bus.close()


@pytest.fixture
async def crew(bus: Bus) -> AsyncIterator[Crew]:
    crew = Crew(bus)
    yield crew
    crew.writing.cancel()


def verbs(crew: Crew) -> Handlers:
    """The verbs of a worker, as far as cancelling goes."""
    parts: dict[str, Any] = dict.fromkeys(
        ("models", "providers", "journal", "registry", "breakers", "replaying", "prices")
    )
    return Handlers(
        bus=crew.bus, flights=crew.worker.flights, withdrawals=crew.worker.withdrawals, log=structlog.get_logger(),
        held=lambda corr_id: corr_id in crew.book.state.open, backlog=Backlog(crew.bus, crew.journal, CONSUMER),
        **parts,
    )  # fmt: skip


async def died(crew: Crew, corr_id: str, seq: int) -> None:
    """A worker reserved this call, and is gone."""
    wish = Reserve(corr_id, "dead", seq, "mock", 900, WORST, 40_000, Limits(), run_id="r", node_id=f"n-{corr_id}")
    await crew.book.ask(wish._replace(billed_by="openai"))


async def looks(bus: Bus) -> list[str]:
    """From now on, what is asked of the kept wishes."""
    asked: list[str] = []
    await bus.subscribe(f"$JS.API.DIRECT.GET.{LLM_WITHDRAWALS}.>", lambda message: asked.append(message.subject))
    await bus.flush()
    return asked


async def answered(crew: Crew, corr_id: str) -> dict[str, Any]:
    answer = await eventually(lambda: crew.answer(corr_id), timeout_s=20)

    async def settled() -> bool:
        return await crew.unsettled() == 0

    await eventually(settled, timeout_s=20)
    return answer


async def test_a_call_nobody_wants_any_more_is_taken_over_and_not_asked(crew: Crew, bus: Bus) -> None:
    await died(crew, "c", await crew.ask("c"))
    await crew.worker.withdrawals.keep(CorrRef("c"))
    await crew.worker.start()
    error = (await answered(crew, "c"))["error"]
    events = [
        event async for record in bus.history(EVENTS_LLM_WORKER, SUBJECT) for event in CODEC.decode(record.data).events
    ]
    (paid,) = [event for event in events if isinstance(event, LlmPaid)]
    assert (error["code"], crew.gate.calls) == ("cancelled", [])
    assert error["abandoned_usd_micros"] == paid.cost_usd_micros == WORST
    assert not crew.book.state.open


async def test_only_what_may_have_been_said_unheard_is_looked_for(crew: Crew, bus: Bus) -> None:
    asked = await looks(bus)
    crew.gate.open.set()
    await crew.ask("old")
    await crew.worker.start()
    await answered(crew, "old")
    await crew.ask("fresh")
    await answered(crew, "fresh")
    assert crew.gate.calls == ["old", "fresh"]
    assert [subject.removeprefix(f"$JS.API.DIRECT.GET.{LLM_WITHDRAWALS}.") for subject in asked] == [
        llm_withdrawn("old")
    ]


async def test_a_wish_said_while_the_connection_was_lost_is_heard_after_it(
    crew: Crew, bus: Bus, nats_server: NatsServer
) -> None:
    await crew.worker.start()
    await crew.ask("c")
    await eventually(lambda: crew.gate.calls)
    watching = asyncio.create_task(crew.worker.withdrawals.watch())
    try:
        await bus.store(llm_withdrawn("c"), b'{"corr_id":"c"}', stream=LLM_WITHDRAWALS, msg_id="withdrawn:c")
        nats_server.kill()
        nats_server.start()
        assert (await answered(crew, "c"))["error"]["code"] == "cancelled"
    finally:
        watching.cancel()


async def test_a_wish_that_cannot_be_looked_for_lets_nobody_be_asked(crew: Crew, bus: Bus) -> None:
    await crew.ask("c")
    await bus.api(f"STREAM.DELETE.{LLM_WITHDRAWALS}")
    await crew.worker.start()

    async def given_back() -> bool:
        info = await bus.api(f"CONSUMER.INFO.{CONSUMER.stream}.{CONSUMER.name}")
        return int(info["num_redelivered"]) > 0

    await eventually(given_back, timeout_s=20)
    assert crew.gate.calls == []
    await provision.apply(bus)
    crew.gate.open.set()
    await answered(crew, "c")
    assert crew.gate.calls == ["c"]


async def test_cancelling_is_true_while_the_ledger_holds_the_call_of_a_dead_worker(crew: Crew, bus: Bus) -> None:
    handlers = verbs(crew)
    await died(crew, "c", 1)
    assert await handlers.cancel(CorrRef("c"), SOMEBODY) is True
    assert await handlers.cancel(CorrRef("unknown"), SOMEBODY) is False
    kept = await bus.last(LLM_WITHDRAWALS, llm_withdrawn("c"))
    assert kept is not None
    assert msgspec.json.decode(kept.data) == {"corr_id": "c"}


async def test_cancelling_is_true_while_a_request_waits_for_a_worker_and_false_once_it_is_answered(
    crew: Crew, bus: Bus
) -> None:
    handlers = verbs(crew)
    await crew.ask("other")
    await bus.store("htdag.v1.llm.req.mock", BODY, stream=LLM_REQUESTS, msg_id="c")
    assert [await handlers.cancel(CorrRef(corr_id), SOMEBODY) for corr_id in ("c", "unknown")] == [True, False]
    await crew.worker.start()
    assert (await eventually(lambda: crew.answer("c"), timeout_s=20))["error"]["code"] == "cancelled"
    # The other one is under way, so the broker does not count this one as settled in order.
    assert await handlers.cancel(CorrRef("c"), SOMEBODY) is False
    assert crew.gate.calls == ["other"]


async def test_a_call_that_is_answered_already_was_not_stopped(crew: Crew, bus: Bus) -> None:
    handlers, replies = verbs(crew), list[bytes]()
    await crew.worker.start()
    await crew.ask("c")
    await eventually(lambda: crew.gate.calls)
    flight = crew.worker.flights.of("c")
    assert flight is not None
    flight.phase = "answered"
    inbox = bus.inbox()
    await bus.subscribe(inbox, lambda message: replies.append(message.data))
    for corr_id in ("c", "unknown"):
        handlers.cancel_here(Message(LLM_CANCEL, msgspec.json.encode(CorrRef(corr_id)), {}, inbox))
    await bus.flush()
    assert await eventually(lambda: replies) == [b"false"]


async def test_a_wish_that_cannot_be_kept_is_said_all_the_same_and_owned_up_to(crew: Crew, bus: Bus) -> None:
    handlers = verbs(crew)
    await bus.subscribe(LLM_CANCEL, handlers.cancel_here)
    await crew.worker.start()
    await crew.ask("c")
    await eventually(lambda: crew.gate.calls)
    await bus.api(f"STREAM.DELETE.{LLM_WITHDRAWALS}")
    assert await handlers.cancel(CorrRef("c"), SOMEBODY) is True
    with pytest.raises(Rejected) as refused:
        await handlers.cancel(CorrRef("unknown"), SOMEBODY)
    assert refused.value.code == "stream_missing"
    assert (await answered(crew, "c"))["error"]["code"] == "cancelled"
