"""Effects: what is sent where, under which ids, and that every effect ends with an outcome."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import structlog

from contracts.approval import RequestApproval
from contracts.errors import Rejected
from contracts.ledger import Budget, Charge
from contracts.llm import HEADER_ANSWER_TO, LlmInput, LlmRequest
from contracts.run import TakeAnswer, TakeResult
from contracts.strategy import StrategyBody
from contracts.subjects import llm_withdrawn
from contracts.taint import Reading
from services.executor import letting_go
from services.executor.effect_runner import RunEffects
from services.executor.epic_budgets import EpicBudgets
from services.executor.run.effects import (
    AskApproval,
    CallNats,
    CancelLlm,
    RunNoop,
    RunScript,
    RunStage,
    SendLlm,
    WithdrawApproval,
)
from services.executor.strategy_book import StrategyBook
from services.runtime.bus import Message
from services.runtime.clock import FixedClock
from services.runtime.event_store import Recorded
from services.runtime.publisher import Stored
from tests.support.eventually import eventually
from tests.support.spec import NOW_MS

LOG = structlog.get_logger()


class PlainBus:
    """A broker that keeps what it is given; `reply` is what a request gets, or raises."""

    payload_max = 1 << 20

    def __init__(self) -> None:
        self.stored: list[tuple[str, bytes, str, str, Mapping[str, str]]] = []
        self.published: list[tuple[str, bytes, Mapping[str, str]]] = []
        self.reply: Message | Rejected = Message("x", b"{}", {}, "")
        self.refuses: Exception | None = None
        self.flushed: list[int] = []
        self.silent = False
        self.logged: dict[str, Recorded] = {}

    async def flush(self, timeout_s: float = 5.0) -> None:
        if self.silent:
            raise TimeoutError
        self.flushed.append(len(self.published))

    def store(
        self, subject: str, data: bytes, *, stream: str, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> "asyncio.Future[Stored]":
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        if isinstance(self.refuses, ValueError):
            raise self.refuses
        if self.refuses is not None:
            future.set_exception(self.refuses)
        else:
            self.stored.append((subject, data, stream, msg_id, headers or {}))
            future.set_result(Stored(len(self.stored), False))
        return future

    async def last(self, stream: str, subject: str) -> Recorded | None:
        return self.logged.get(subject)

    def publish(self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.published.append((subject, data, headers or {}))

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> Message:
        self.publish(subject, data, headers=headers)
        if isinstance(self.reply, Rejected):
            raise self.reply
        return self.reply


class PlainLua:
    """Returns what the source says as JSON, or the context when it says `context`."""

    async def call(
        self, src: str, context: Any, *, argv: list[Any] | None = None, timeout_ms: int = 0, stage: str = ""
    ) -> Any:
        if src == "fail":
            raise Rejected("lua_error", "line 1: no")
        if src == "break":
            raise OSError("the child is gone")
        return {"context": context, "argv": argv, "stage": stage} if src == "context" else msgspec.json.decode(src)


class Bench:
    """A runner with its surroundings."""

    def __init__(self) -> None:
        self.bus, self.book = PlainBus(), StrategyBook()
        self.budgets = EpicBudgets(self.bus)
        self.runner = RunEffects(
            bus=self.bus, lua=PlainLua(), book=self.book, budgets=self.budgets, clock=FixedClock(), log=LOG
        )

    async def outcome(self, effect: Any) -> Any:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.runner.start("r1", effect, ended.set_result)
        async with asyncio.timeout(5):
            return await ended


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_noop_ends_at_once_with_its_result(bench: Bench):
    ended: list[Any] = []
    bench.runner.start("r1", RunNoop("a", 2, {"n": 1}), ended.append)
    assert ended == [TakeResult("a", 2, "body", {"n": 1})]


REQUEST = LlmRequest(LlmInput([{"role": "user", "content": "x"}]), "r1", "a", "r1.a.1.llm-1", "claude-sonnet-4.5")


async def test_an_llm_request_is_stored_under_its_corr_id_and_says_where_the_answer_goes(bench: Bench):
    assert await bench.outcome(SendLlm(REQUEST)) is None
    ((subject, data, stream, msg_id, headers),) = bench.bus.stored
    assert (subject, stream, msg_id) == ("htdag.v1.llm.req.claude-sonnet-4.5", "HTDAG_LLM_REQ", "r1.a.1.llm-1")
    assert headers[HEADER_ANSWER_TO] == "htdag.v1.cmd.executor.run.r1.answer"
    assert msgspec.json.decode(data, type=LlmRequest) == REQUEST


EPIC = "htdag.v1.evt.planner.epic.e1"


async def test_a_request_says_whose_budgets_hold_it_as_they_are_now(bench: Bench):
    charge = Charge("a", "e1", [Budget("run", "r1", tokens=10)])
    for seq, micros in ((1, 50_000), (2, 200_000)):
        summary = {"Htdag-Summary": f'{{"budget_usd_micros":{micros}}}'}
        bench.bus.logged[EPIC] = Recorded(seq, EPIC, b"", summary)
        if seq == 2:
            bench.budgets.take(bench.bus.logged[EPIC])
        assert await bench.outcome(SendLlm(REQUEST, 0, charge)) is None
        *_, headers = bench.bus.stored[-1]
        said = msgspec.json.decode(headers["Htdag-Budget"], type=Charge)
        assert said == Charge("a", "e1", [Budget("run", "r1", tokens=10), Budget("epic", "e1", micros)])


async def test_an_epic_that_nobody_made_holds_nothing(bench: Bench):
    assert await bench.outcome(SendLlm(REQUEST, 0, Charge("a", "e1"))) is None
    *_, headers = bench.bus.stored[-1]
    assert headers["Htdag-Budget"] == '{"task_id":"a","epic_id":"e1"}'


async def test_an_llm_request_that_cannot_be_stored_is_answered_with_why(bench: Bench):
    bench.bus.refuses = Rejected("storage_full")
    outcome = await bench.outcome(SendLlm(REQUEST))
    assert isinstance(outcome, TakeAnswer)
    assert (outcome.corr_id, outcome.error["code"]) == ("r1.a.1.llm-1", "storage_full")


async def test_a_call_nobody_waits_for_is_let_go(bench: Bench):
    assert await bench.outcome(CancelLlm("c1", "a")) is None
    # Behind the keeping once more: who looked for it before that, to take the call over, hears it.
    (subject, data, _), again = bench.bus.published
    assert subject == again[0] == "htdag.v1.llm.cancel"
    assert msgspec.json.decode(data) == {"corr_id": "c1", "run_id": "r1", "node_id": "a"}
    ((kept_at, kept, stream, *_),) = bench.bus.stored
    assert (kept_at, stream, kept) == (llm_withdrawn("c1"), "HTDAG_LLM_WITHDRAWN", data)


async def test_a_wish_is_said_again_until_it_is_kept_and_only_then_it_is_done(bench: Bench, monkeypatch):
    monkeypatch.setattr(letting_go, "RETRY_S", 0.02)
    bench.bus.refuses = Rejected("storage_full")
    done = asyncio.ensure_future(bench.outcome(CancelLlm("c1", "a")))
    await eventually(lambda: len(bench.bus.published) > 2)
    assert not done.done()
    bench.bus.refuses = None
    assert await done is None
    assert len(bench.bus.stored) == 1


async def test_a_script_gets_context_and_arguments(bench: Bench):
    outcome = await bench.outcome(RunScript("a", 1, "context", [1], {"input": 2}, 1000))
    assert (outcome.step, outcome.value) == ("body", {"context": {"input": 2}, "argv": [1], "stage": "body"})


@pytest.mark.parametrize(("src", "code"), [("fail", "lua_error"), ("break", "internal")])
async def test_a_script_that_fails_has_an_outcome_too(bench: Bench, src: str, code: str):
    outcome = await bench.outcome(RunScript("a", 1, src, [], {}, 1000))
    assert (outcome.task_id, outcome.attempt, outcome.error["code"]) == ("a", 1, code)


async def test_a_result_that_does_not_fit_into_a_commit_is_refused(bench: Bench):
    outcome = await bench.outcome(RunScript("a", 1, '"' + "x" * (300 << 10) + '"', [], {}, 1000))
    assert (outcome.value, outcome.error["code"]) == (None, "too_large")


def knows(bench: Bench, scripts: dict[str, str], version: int = 1) -> None:
    from contracts.codec import CommitCodec
    from contracts.commit import Commit
    from contracts.strategy import StrategyEvent, StrategyPut
    from services.runtime.event_store import Recorded

    put = StrategyPut("standard", version, StrategyBody(scripts), "d")
    codec: CommitCodec[StrategyEvent] = CommitCodec(StrategyEvent)
    data = codec.encode(Commit("2026-11-20T00:00:00Z", "x", "c", "r", [put]))
    bench.book.take(Recorded(version, "htdag.v1.evt.planner.strategy.standard", data, {}))


def stage(name: str, context: dict[str, Any] | None = None, strategy: str = "standard@1") -> RunStage:
    return RunStage("a", 1, "spawn", strategy, name, context or {})


async def test_a_stage_runs_the_script_of_its_version(bench: Bench):
    knows(bench, {"agent_spawning": '{"v":1}'}, 1)
    knows(bench, {"agent_spawning": '{"v":2}'}, 2)
    assert (await bench.outcome(stage("agent_spawning"))).value == {"v": 1}
    assert (await bench.outcome(stage("agent_spawning", strategy="standard@2"))).value == {"v": 2}


async def test_a_stage_that_the_strategy_lacks_falls_back(bench: Bench):
    knows(bench, {})
    task = {"id": "a", "role": "coder", "estimated_complexity": 5.0}
    outcome = await bench.outcome(stage("agent_spawning", {"task": task}))
    assert outcome.value["agents"][0]["model"] == "gemini-2.5-pro"


async def test_a_version_that_comes_a_little_later_is_waited_for(bench: Bench):
    asyncio.get_running_loop().call_later(0.05, knows, bench, {"completion": '"late"'})
    assert (await bench.outcome(stage("completion"))).value == "late"


async def test_a_version_that_never_comes_is_not_found(bench: Bench):
    with pytest.raises(Rejected, match="strategy_not_found"):
        await bench.book.find("other@9", wait_s=0.01)


async def test_a_name_means_its_active_version(bench: Bench):
    knows(bench, {}, 1)
    knows(bench, {}, 2)
    assert (bench.book.resolve("standard"), bench.book.resolve("standard@1")) == ("standard@2", "standard@1")
    with pytest.raises(Rejected, match="strategy_not_found"):
        bench.book.resolve("other")


def call(mode_publish: bool = False) -> CallNats:
    return CallNats("a", 1, "work.do", {"x": 1}, mode_publish, 1000, "r1/a/1")


async def test_a_nats_call_carries_its_id_and_its_json_reply_is_the_result(bench: Bench):
    bench.bus.reply = Message("x", b'{"y":2}', {}, "")
    outcome = await bench.outcome(call())
    assert outcome.value == {"y": 2}
    assert bench.bus.published == [("work.do", b'{"x":1}', {"Nats-Msg-Id": "r1/a/1"})]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Message("x", b"no json", {}, ""), "bad_reply"),
        (Message("x", b"[" * 65 + b"]" * 65, {}, ""), "bad_reply"),
        (Message("x", b"{}", {"Nats-Service-Error": "no"}, ""), "bad_reply"),
        (Message("x", b"1" * (300 << 10), {}, ""), "too_large"),
        (Rejected("no_responders"), "no_responders"),
        (Rejected("timeout"), "timeout"),
    ],
)
async def test_a_nats_call_that_fails(bench: Bench, reply: Message | Rejected, code: str):
    bench.bus.reply = reply
    assert (await bench.outcome(call())).error["code"] == code


async def test_a_message_that_is_only_published_has_no_result(bench: Bench):
    outcome = await bench.outcome(call(mode_publish=True))
    assert (outcome.value, outcome.error, len(bench.bus.published)) == (None, None, 1)
    assert bench.bus.flushed == [1]


async def test_a_message_that_the_broker_does_not_confirm_is_not_done(bench: Bench):
    bench.bus.silent = True
    assert (await bench.outcome(call(mode_publish=True))).error["code"] == "nats_unavailable"


async def test_a_request_that_may_be_stored_all_the_same_is_called_back(bench: Bench):
    bench.bus.refuses = Rejected("nats_unavailable")
    assert (await bench.outcome(SendLlm(REQUEST))).error["code"] == "nats_unavailable"
    (subject, data, _) = await eventually(lambda: bench.bus.published and bench.bus.published[0])
    assert (subject, msgspec.json.decode(data)["corr_id"]) == ("htdag.v1.llm.cancel", REQUEST.corr_id)


async def test_an_effect_that_breaks_before_it_begins_ends_all_the_same(bench: Bench):
    bench.bus.refuses = ValueError("x")
    outcome = await bench.outcome(SendLlm(REQUEST))
    assert (outcome.corr_id, outcome.error["code"]) == (REQUEST.corr_id, "internal")
    assert await bench.outcome("no such effect") is None


class BusyLua(PlainLua):
    """Bodies never end; it counts who is there at once."""

    def __init__(self) -> None:
        self.there: dict[str, int] = {}

    async def call(self, src: str, context: Any, *, stage: str = "", **how: Any) -> Any:
        self.there[stage] = self.there.get(stage, 0) + 1
        if stage == "body":
            await asyncio.get_running_loop().create_future()
        return await super().call(src, context, stage=stage, **how)


async def test_many_bodies_wait_here_and_keep_no_stage_and_no_call_waiting():
    bench, lua = Bench(), BusyLua()
    bench.runner = RunEffects(
        bus=bench.bus, lua=lua, book=bench.book, budgets=bench.budgets, clock=FixedClock(), log=LOG, lua_children=2
    )
    knows(bench, {"completion": '"judged"'})
    for number in range(2_000):
        bench.runner.start("r1", RunScript(f"t{number}", 1, "1", [], {}, 1000), lambda _: None)
    assert (await bench.outcome(stage("completion"))).value == "judged"
    assert (await bench.outcome(call())).error is None
    assert lua.there == {"body": 2, "completion": 1}
    await bench.runner.stop()


async def test_stopping_cuts_what_is_under_way(bench: Bench):
    ended: list[Any] = []
    bench.runner.start("r1", stage("completion"), ended.append)
    await asyncio.sleep(0)
    await bench.runner.stop()
    assert ended == []


ASK = AskApproval("apr-1", "deploy", 1, "Deploy it", "d1", {"cmd": ["deploy.sh"]}, NOW_MS + 60_000)


async def test_a_gate_is_asked_for_durably_under_its_own_name(bench: Bench):
    assert await bench.outcome(ASK) is None
    [(subject, data, stream, msg_id, _)] = bench.bus.stored
    assert (subject, stream) == ("htdag.v1.cmd.identity.approval.apr-1.request", "HTDAG_CMD")
    assert msg_id == "approval:apr-1:request"
    request = msgspec.json.decode(data, type=RequestApproval)
    assert (request.run_id, request.task_id, request.attempt, request.timeout_ms) == ("r1", "deploy", 1, 60_000)
    assert (request.action, request.digest, request.approvers) == ({"cmd": ["deploy.sh"]}, "d1", [])


async def test_a_gate_is_asked_for_with_what_was_read_and_no_secret(bench: Bench):
    key = "ghp_" + "a1B2" * 9
    read = [Reading("fs", "/code/evil.txt", "read"), Reading("fs", f"/code/{key}", "read")]
    await bench.outcome(msgspec.structs.replace(ASK, read_from=read, read_more=2))
    [(_, data, _, _, _)] = bench.bus.stored
    request = msgspec.json.decode(data, type=RequestApproval)
    assert (request.read_from[0], request.read_more) == (read[0], 2)
    assert request.read_from[1].what.startswith("/code/")
    assert key.encode() not in data


async def test_a_gate_that_cannot_be_asked_for_is_tried_again(bench: Bench):
    bench.bus.refuses = Rejected("nats_unavailable")
    ended: list[Any] = []
    bench.runner.start("r1", ASK, ended.append)
    await asyncio.sleep(0)
    bench.bus.refuses = None
    await eventually(lambda: ended == [None])
    assert len(bench.bus.stored) == 1


async def test_a_gate_that_has_expired_is_not_asked_for(bench: Bench):
    assert await bench.outcome(msgspec.structs.replace(ASK, expires_at_ms=NOW_MS)) is None
    assert not bench.bus.stored


async def test_a_gate_is_withdrawn(bench: Bench):
    assert await bench.outcome(WithdrawApproval("apr-1", "enough")) is None
    await eventually(lambda: bench.bus.stored)
    [(subject, data, *_)] = bench.bus.stored
    assert subject == "htdag.v1.cmd.identity.approval.apr-1.withdraw"
    assert msgspec.json.decode(data) == {"type": "approval.withdraw.v1", "reason": "enough"}
