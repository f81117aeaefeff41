"""Money and limits with two real workers on a real broker: nothing exceeds them, also when workers are killed."""

import asyncio
import json
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts import streams
from contracts.codec import CommitCodec
from contracts.ledger import Budget, LedgerEvent, LlmPaid, LlmReleased, LlmReserved, LlmTakenOver
from contracts.reply import RemoteRejected
from contracts.subjects import llm_request, llm_response, llm_tokens, rpc
from services.llm_worker.ledger.book import SUBJECT
from services.llm_worker.ledger.limits import Limits
from services.runtime import nats_client
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.timeout(180)

CODEC: CommitCodec[LedgerEvent] = CommitCodec(LedgerEvent)
INPUT = {"messages": [{"role": "user", "content": "Say hi"}]}
DOLLAR = 1_000_000


class Pool:
    """Two workers under the same limits, and what is asked of them."""

    def __init__(self, server: NatsServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.workers: list[ServiceProcess] = []
        self.urls: list[str] = []

    async def start(self, *, models: dict[str, Any] | None = None, **limits: Any) -> Bus:
        """Start both; a limit that is not named is lifted."""
        all_limits = {"usd_per_day": 0, "requests_per_minute": 0, "concurrent": 0, **limits}
        for name in ("one", "other"):
            process = ServiceProcess(
                "llm-worker",
                self.server,
                self.folder / name,
                HTDAG_LLM_WORKER__LIMITS=json.dumps(all_limits),
                HTDAG_LLM_WORKER__MODELS=json.dumps(models or {}),
            )
            process.start()
            self.workers.append(process)
        self.urls = [await process.ready() for process in self.workers]
        self.bus = Bus(await nats_client.connect(self.server.url, name="test"))
        await self.bus.start()
        return self.bus

    async def store(self, corr_id: str, model: str, *, timeout_ms: int = 30_000, **params: Any) -> None:
        body = {
            "run_id": "r",
            "node_id": corr_id,
            "corr_id": corr_id,
            "input": INPUT,
            "params": {"timeout_ms": timeout_ms, **params},
        }
        await self.bus.store(llm_request(model), msgspec.json.encode(body), stream=streams.LLM_REQUESTS, msg_id=corr_id)

    async def answer(self, corr_id: str) -> dict[str, Any] | None:
        entry = await self.bus.last(streams.LLM_RESPONSES, llm_response("r", corr_id))
        return None if entry is None else json.loads(entry.data)

    async def answers(self, corr_ids: list[str]) -> dict[str, dict[str, Any]]:
        """The answers, when all are there."""
        subjects = {llm_response("r", corr_id): corr_id for corr_id in corr_ids}
        found = await self.bus.last_of_many(streams.LLM_RESPONSES, list(subjects))
        return {subjects[subject]: json.loads(entry.data) for subject, entry in found.items()}

    async def all_answered(self, corr_ids: list[str], timeout_s: float = 60.0) -> dict[str, dict[str, Any]]:
        async def check() -> Any:
            found = await self.answers(corr_ids)
            return found if len(found) == len(corr_ids) else None

        answered: dict[str, dict[str, Any]] = await eventually(check, timeout_s=timeout_s, interval_s=0.1)
        return answered

    async def events(self) -> list[LedgerEvent]:
        return [
            event
            async for record in self.bus.history(streams.EVENTS_LLM_WORKER, SUBJECT)
            for event in CODEC.decode(record.data).events
        ]

    async def ask(self, verb: str, **body: Any) -> Any:
        return await self.bus.call(rpc("llm-worker", "llm", verb), body)

    def metric(self, name: str) -> float:
        """Summed over both workers."""
        total = 0.0
        for url in self.urls:
            with urllib.request.urlopen(f"{url}/metrics", timeout=5) as page:
                for line in page.read().decode().splitlines():
                    if line.startswith((f"{name} ", f"{name}{{")):
                        total += float(line.rsplit(" ", 1)[1])
        return total


@pytest.fixture
async def pool(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Pool]:
    made = Pool(nats_server, tmp_path)
    yield made
    await made.bus.close()
    for process in made.workers:
        process.kill()


def most_at_once(events: list[LedgerEvent]) -> int:
    most = live = 0
    for event in events:
        live += {LlmReserved: 1, LlmPaid: -1, LlmReleased: -1}.get(type(event), 0)
        most = max(most, live)
    return most


def check_money(events: list[LedgerEvent], limits: Limits) -> None:
    """What is spent and reserved is within the limit at every sequence; each call is reserved, and ended, once."""
    held: dict[str, int] = {}
    spent = 0
    ended: set[str] = set()
    for event in events:
        if isinstance(event, LlmReserved):
            assert event.corr_id not in held
            held[event.corr_id] = event.usd_micros or 0
        elif isinstance(event, LlmPaid):
            assert event.corr_id not in ended
            ended.add(event.corr_id)
            held.pop(event.corr_id)
            spent += event.cost_usd_micros or 0
        elif isinstance(event, LlmReleased):
            held.pop(event.corr_id)
        assert spent + sum(held.values()) <= limits.usd_micros
        assert not limits.concurrent or len(held) <= limits.concurrent
    assert not held


async def test_both_workers_together_have_so_many_calls_under_way_and_the_rest_waits(pool):
    await pool.start(concurrent=4)
    calls = [f"c{number}" for number in range(12)]
    for corr_id in calls:
        await pool.store(corr_id, "mock:delay=2s")
    await eventually(lambda: pool.metric("htdag_llm_limiter_queue_depth") == 8)
    seen = await pool.ask("limits")
    assert (seen["in_flight"], seen["concurrent"], seen["queue"]) == (4, 4, 8)
    answered = await pool.all_answered(calls)
    assert not any("error" in answer for answer in answered.values())
    events = await eventually(lambda: _paid(pool, 12))
    assert most_at_once(events) == 4
    assert len({event.worker_id for event in events if isinstance(event, LlmReserved)}) == 2
    assert pool.metric("htdag_llm_limiter_queue_depth") == 0


async def test_the_minute_is_shared_and_whoever_waited_in_vain_hears_when_to_try_again(pool):
    await pool.start(requests_per_minute=6)
    calls = [f"c{number}" for number in range(9)]
    for corr_id in calls:
        await pool.store(corr_id, "mock", timeout_ms=1_000)
    answered = await pool.all_answered(calls)
    codes = Counter(answer.get("error", {}).get("code", "ok") for answer in answered.values())
    assert codes == {"ok": 6, "rate_limit_exceeded": 3}
    late = next(answer["error"] for answer in answered.values() if "error" in answer)
    assert 50 <= late["retry_after"] <= 60
    assert (await pool.ask("limits"))["requests_used"] == 6


async def test_the_day_refuses_what_it_cannot_pay(pool):
    await pool.start(usd_per_day=100)
    await pool.store("a", "mock:price=60/call")
    assert (await eventually(lambda: pool.answer("a")))["cost_usd_micros"] == 60 * DOLLAR
    await pool.store("b", "mock:price=60/call")
    error = (await eventually(lambda: pool.answer("b")))["error"]
    assert {key: error[key] for key in ("code", "scope", "limit", "spent", "reserved", "needed")} == {
        "code": "budget_exceeded",
        "scope": "day",
        "limit": 100.0,
        "spent": 60.0,
        "reserved": 0.0,
        "needed": 60.0,
    }
    assert error["resets_at"].endswith("T00:00:00Z")
    assert pool.metric("htdag_llm_ledger_spent_usd_micros") == 2 * 60 * DOLLAR  # both know
    seen = await pool.ask("limits")
    assert (seen["limit_usd_micros"], seen["spent_usd_micros"], seen["reserved_usd_micros"]) == (
        100 * DOLLAR,
        60 * DOLLAR,
        0,
    )


async def test_an_unknown_price_is_refused_unless_it_is_allowed(pool):
    nowhere = {"provider": "openai", "model": "nobody-knows-it", "base_url": "http://127.0.0.1:1"}
    await pool.start(usd_per_day=100, models={"new": nowhere})
    await pool.store("a", "new")
    assert (await eventually(lambda: pool.answer("a")))["error"]["code"] == "price_unknown"
    await pool.store("b", "new", allow_unpriced=True)
    assert (await eventually(lambda: pool.answer("b"), timeout_s=20))["error"]["code"] == "provider_unreachable"
    assert [type(event) for event in await eventually(lambda: _ended(pool, 1))] == [LlmReserved, LlmReleased]
    estimate = await pool.ask("estimate", model_id="new", input=INPUT)
    assert (estimate["cost_usd_micros_max"], estimate["refusal"]) == (None, "price_unknown")


async def test_the_estimate_says_what_would_be_reserved(pool):
    await pool.start(usd_per_day=100)
    request = {"model_id": "mock:price=60/call", "input": INPUT, "params": {"max_tokens": 50}}
    estimate = await pool.ask("estimate", **request)
    assert (estimate["cost_usd_micros_max"], estimate["completion_tokens_max"], estimate["refusal"]) == (
        60 * DOLLAR,
        50,
        None,
    )
    await pool.store("a", "mock:price=60/call", max_tokens=50)
    await eventually(lambda: pool.answer("a"))
    reserved = next(event for event in await pool.events() if isinstance(event, LlmReserved))
    assert reserved.tokens == estimate["prompt_tokens_max"] + 50
    assert reserved.usd_micros == 60 * DOLLAR
    assert (await pool.ask("estimate", **request))["refusal"] == "budget_exceeded"


async def test_a_price_of_the_model_table_is_shown_estimated_answered_and_paid_alike(pool):
    priced = {"provider": "mock", "price_in_usd_per_mtok": 10, "price_out_usd_per_mtok": 20}
    bus = await pool.start(usd_per_day=100, models={"dear": priced})
    views = {view["id"]: view for view in await pool.ask("models")}
    shown = {name: (view["price_in_usd_per_mtok"], view["price_out_usd_per_mtok"]) for name, view in views.items()}
    assert (shown["dear"], shown["mock"], shown["smollm2"]) == ((10, 20), (0, 0), (0, 0))
    estimate = await pool.ask("estimate", model_id="dear", input=INPUT, params={"max_tokens": 20})
    body = {"run_id": "r", "node_id": "n", "corr_id": "c", "input": INPUT, "params": {"max_tokens": 20}}
    answer = json.loads((await bus.request("llm.req.dear", msgspec.json.encode(body))).data)
    due = 10 * answer["usage"]["prompt_tokens"] + 20 * 20
    assert (answer["cost_usd_micros"], estimate["cost_usd_micros_max"]) == (due, due)
    await eventually(lambda: _paid(pool, 1))
    assert (await pool.ask("ledger", corr_id="c"))["cost_usd_micros"] == due
    assert pool.metric("htdag_llm_cost_usd_micros_total") == due


async def test_the_same_call_is_reserved_and_paid_once_and_its_answer_is_free_afterwards(pool):
    bus = await pool.start(usd_per_day=100)
    body = {"run_id": "r", "node_id": "n", "corr_id": "c", "input": INPUT}
    for _ in range(3):
        answer = json.loads((await bus.request("llm.req.mock:price=1/call", msgspec.json.encode(body))).data)
        assert answer["cost_usd_micros"] == DOLLAR
    events = await eventually(lambda: _paid(pool, 1))
    assert [type(event) for event in events] == [LlmReserved, LlmPaid]
    view = await pool.ask("ledger", corr_id="c")
    assert (view["calls"], view["cost_usd_micros"], view["rows"][0]["status"]) == (1, DOLLAR, "paid")


async def test_a_call_that_is_stopped_pays_for_what_it_has_said(pool):
    bus = await pool.start(usd_per_day=100)
    await pool.store("c", "mock:price=1/call,stream_delay=200ms,tokens=1000", stream=True)
    await eventually(lambda: bus.last(streams.LLM_TOKENS, llm_tokens("r", "c")), timeout_s=20)
    assert await pool.ask("cancel", corr_id="c")
    assert (await eventually(lambda: pool.answer("c")))["error"]["code"] == "cancelled"
    paid = (await eventually(lambda: _paid(pool, 1)))[-1]
    assert isinstance(paid, LlmPaid)
    assert (paid.cost_usd_micros, paid.estimated) == (DOLLAR, True)
    assert paid.completion_tokens < 100


async def test_what_was_answered_is_in_the_ledger_when_a_worker_stops(pool):
    await pool.start()
    calls = [f"c{number}" for number in range(40)]
    await asyncio.gather(*(pool.store(corr_id, "mock:price=0.01/call") for corr_id in calls))
    await pool.all_answered(calls)
    assert [process.terminate() for process in pool.workers] == [0, 0]
    events = await pool.events()
    assert sorted(event.corr_id for event in events) == sorted(calls)
    assert {type(event) for event in events} == {LlmPaid}


async def test_a_broken_budget_is_refused_not_ignored(pool):
    bus = await pool.start()
    body = {"run_id": "r", "node_id": "c", "corr_id": "c", "input": INPUT}
    await bus.store(
        llm_request("mock"),
        msgspec.json.encode(body),
        stream=streams.LLM_REQUESTS,
        msg_id="c",
        headers={"Htdag-Budget": '{"budgets":5}'},
    )
    assert (await eventually(lambda: pool.answer("c")))["error"]["code"] == "invalid_request"
    with pytest.raises(RemoteRejected) as refused:
        await pool.ask("ledger", day="yesterday")
    assert refused.value.code == "bad_request"
    assert Budget("run", "r").key == "run/r"


@pytest.mark.parametrize(
    "point", ["before_ledger", "after_ledger", "before_provider", "after_answer", "after_journal", "after_reply"]
)
async def test_what_a_dead_worker_held_is_paid_or_released_and_never_both(pool, nats_server, tmp_path, point):
    await pool.start(usd_per_day=100, concurrent=5)
    pool.workers[0].terminate()
    doomed = ServiceProcess(
        "llm-worker", nats_server, tmp_path / "doomed", HTDAG_LLM_WORKER__LIMITS='{"usd_per_day":100}'
    )
    pool.workers[1].terminate()
    doomed.start(fault=f"llm_worker.{point}")
    pool.workers.append(doomed)
    await doomed.ready()
    await pool.store("a", "mock:price=60/call")
    await eventually(lambda: doomed.dead, timeout_s=20)
    pool.workers[0].start()
    assert (await eventually(lambda: pool.answer("a"), timeout_s=60))["cost_usd_micros"] == 60 * DOLLAR
    events = await eventually(lambda: _paid(pool, 1), timeout_s=30)
    assert [type(event) for event in events if not isinstance(event, LlmTakenOver)] == [LlmReserved, LlmPaid]


async def test_two_hundred_callers_and_killed_workers_spend_a_dollar_and_not_a_cent_more(pool):
    await pool.start(usd_per_day=1, concurrent=10)
    calls = [f"c{number}" for number in range(200)]
    await asyncio.gather(*(pool.store(corr_id, "mock:price=0.01/call,delay=100ms") for corr_id in calls))
    for victim in pool.workers:
        await eventually(lambda: _paid(pool, 15 + 15 * pool.workers.index(victim)), timeout_s=30)  # noqa: B023
        victim.kill()
        victim.start()
        await victim.ready()
    answered = await pool.all_answered(calls, timeout_s=120)
    codes = Counter(answer.get("error", {}).get("code", "ok") for answer in answered.values())
    assert codes == {"ok": 100, "budget_exceeded": 100}
    events = await eventually(lambda: _paid(pool, 100), timeout_s=30)
    check_money(events, Limits(usd_micros=DOLLAR, concurrent=10))
    assert {event.corr_id for event in events if isinstance(event, LlmPaid)} == {
        corr_id for corr_id, answer in answered.items() if "error" not in answer
    }
    view = await pool.ask("ledger", run_id="r", limit=0)
    assert (view["calls"], view["cost_usd_micros"], view["reserved"]) == (100, DOLLAR, 0)


async def _paid(pool: Pool, count: int) -> list[LedgerEvent] | None:
    events = await pool.events()
    return events if sum(isinstance(event, LlmPaid) for event in events) >= count else None


async def _ended(pool: Pool, count: int) -> list[LedgerEvent] | None:
    events = await pool.events()
    return events if sum(isinstance(event, LlmPaid | LlmReleased) for event in events) >= count else None
