"""Ends of calls that come late, or come from somewhere else: each is in the ledger, and there once."""

import msgspec
import pytest

from contracts.ledger import LedgerEvent, LlmPaid, LlmReleased, LlmReserved, LlmTakenOver
from contracts.llm import LlmError, Usage
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.config import Config
from services.llm_worker.flight import Flight
from services.llm_worker.journal import Key
from services.llm_worker.ledger import state
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.cashier import charge_of
from services.llm_worker.ledger.decider import Reserve
from services.llm_worker.ledger.limits import Limits, LimitsConfig
from services.llm_worker.ledger.opening import CODEC
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import Crew

LIMITED = Config(limits=LimitsConfig(usd_per_day=100, requests_per_minute=0, concurrent=0))


@pytest.fixture
async def crew(bus: Bus):
    crew = Crew(bus, LIMITED)
    await crew.worker.start()
    yield crew
    crew.writing.cancel()


async def events(crew: Crew) -> list[LedgerEvent]:
    return [
        event
        async for record in crew.bus.history(EVENTS_LLM_WORKER, SUBJECT)
        for event in CODEC.decode(record.data).events
    ]


async def types(crew: Crew) -> list[type[LedgerEvent]]:
    return [type(event) for event in await events(crew)]


async def test_a_frozen_worker_that_pays_after_its_reservation_was_released_is_accounted_once(crew):
    await crew.ask("c", "mock:price=0.05/call")
    await eventually(lambda: "c" in crew.cashier.book.state.open)
    left = crew.cashier.book.state.open["c"]
    await crew.cashier.close_orphan("c", left, None)  # somebody else took it for dead
    assert await types(crew) == [LlmReserved, LlmReleased]
    crew.gate.open.set()
    await eventually(lambda: crew.answer("c"))
    await eventually(lambda: _is(crew, [LlmReserved, LlmReleased, LlmPaid]))
    # And its request once more: the answer is there, and nothing is paid again.
    await crew.ask("c", "mock:price=0.05/call", more="once")
    await eventually(lambda: _settled(crew))
    assert await types(crew) == [LlmReserved, LlmReleased, LlmPaid]
    paid = crew.cashier.book.state
    assert (len(paid.open), crew.gate.calls) == (0, ["c"])


async def test_who_fails_late_does_not_release_what_another_worker_took_over(crew):
    await crew.ask("c", "mock:price=0.05/call")
    await eventually(lambda: "c" in crew.cashier.book.state.open)
    flight = crew.worker.flights.of("c")
    wish = await crew.cashier.wish(flight, charge_of(flight))
    await crew.book.ask(wish._replace(worker_id="w2"))
    assert crew.worker.flights.cancel("c")
    assert (await eventually(lambda: crew.answer("c")))["error"]["code"] == "cancelled"
    await eventually(lambda: _settled(crew))
    assert await types(crew) == [LlmReserved, LlmTakenOver]
    assert crew.book.state.open["c"].worker_id == "w2"


async def test_a_bad_request_under_the_id_of_a_call_of_another_worker_does_not_release_it(crew):
    held = Reserve("c", "w2", 77, "mock", 10, 50_000, 60_000, Limits(usd_micros=1_000_000), run_id="r", node_id="n-c")
    await crew.book.ask(held)
    await crew.ask("c", params={"max_tokens": -1})
    assert (await eventually(lambda: crew.answer("c")))["error"]["code"] == "invalid_request"
    await eventually(lambda: _settled(crew))
    assert await types(crew) == [LlmReserved]
    assert crew.book.state.open["c"].worker_id == "w2"


async def test_what_a_dead_worker_had_used_in_vain_is_paid_as_its_answer_says(crew):
    await crew.ask("c", "mock:price=0.05/call")
    await eventually(lambda: "c" in crew.cashier.book.state.open)
    left = crew.cashier.book.state.open["c"]
    error = {"code": "timeout", "usage": msgspec.to_builtins(Usage(3, 4, 7)), "cost_usd_micros": 50_000}
    key = Key(left.run_id, left.node_id, "c")
    data = msgspec.json.encode(LlmError(*key, "mock", error))
    await crew.journal.store(key, data, outcome="timeout", model_used="", request_seq=left.request_seq)
    await crew.cashier.close_orphan("c", left, await crew.journal.find(key))
    paid = (await events(crew))[-1]
    assert isinstance(paid, LlmPaid)
    assert (paid.cost_usd_micros, paid.estimated, paid.prompt_tokens, paid.completion_tokens) == (50_000, True, 3, 4)


async def test_a_payment_that_the_state_has_forgotten_is_not_made_again(crew, monkeypatch):
    flight, entry = await _paid_and_forgotten(crew, monkeypatch)
    # Its worker died before it acknowledged the request: that comes again, much later.
    closing = crew.cashier.close_journaled(flight, entry)
    assert await closing == ()
    assert [event.corr_id for event in await events(crew) if isinstance(event, LlmPaid)].count("c") == 1
    # And one that was answered and never paid is paid now.
    lost = Flight(Key("r", "n-lost", "lost"), flight.request, flight.resolved, flight.waiters[0])
    await crew.journal.store(lost.key, entry.data, outcome="ok", model_used="mock", request_seq=lost.request_seq)
    (paid,) = await crew.cashier.close_journaled(lost, await crew.journal.find(lost.key))
    assert (paid.corr_id, paid.cost_usd_micros) == ("lost", 50_000)


async def test_nor_while_another_request_of_the_same_call_is_under_way(crew, monkeypatch):
    flight, entry = await _paid_and_forgotten(crew, monkeypatch)
    another = Reserve("c", "w2", flight.request_seq + 99, "mock", 10, 50_000, 60_000, Limits(), run_id="r")
    await crew.book.ask(another)
    assert await crew.cashier.close_journaled(flight, entry) == ()
    assert crew.book.state.open["c"].worker_id == "w2"


async def test_an_orphan_is_not_paid_for_with_the_answer_to_another_request(crew):
    await crew.ask("c", "mock:price=0.05/call")
    flight = await eventually(lambda: crew.worker.flights.of("c"))
    crew.gate.open.set()
    entry = await eventually(lambda: crew.journal.find(flight.key))
    await eventually(lambda: _settled(crew))
    another = Reserve("c", "w2", flight.request_seq + 99, "mock", 10, 50_000, 60_000, Limits(), run_id="r")
    await crew.book.ask(another)
    await crew.cashier.close_orphan("c", crew.book.state.open["c"], entry)
    assert await types(crew) == [LlmReserved, LlmPaid, LlmReserved, LlmReleased]


async def _paid_and_forgotten(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> tuple[Flight, Recorded]:
    """A call that was answered and paid so long ago that the ledger's state knows nothing of it."""
    monkeypatch.setattr(state, "CLOSED_MAX", 2)
    await crew.ask("c", "mock:price=0.05/call")
    flight = await eventually(lambda: crew.worker.flights.of("c"))
    crew.gate.open.set()
    entry = await eventually(lambda: crew.journal.find(flight.key))
    for number in range(4):
        await crew.ask(f"other-{number}", "mock:price=0.05/call")
    await eventually(lambda: _settled(crew))
    return flight, entry


async def _is(crew: Crew, wanted: list[type[LedgerEvent]]) -> bool:
    return await types(crew) == wanted


async def _settled(crew: Crew) -> bool:
    return await crew.unsettled() == 0
