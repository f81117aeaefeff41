"""The executor as a process on a real broker, spoken to with plain NATS: runs, refusals, queries, kill -9."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from contracts.subjects import partition
from services.executor.handlers import STRATEGY_WAIT_S
from tests.support.eventually import eventually
from tests.support.listening import listen
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

FINAL = {"completed", "failed", "cancelled"}
NOOP = {"type": "noop", "result": {"n": 1}}


class Caller:
    """A client without htdag code."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def ask(self, verb: str, body: Any) -> Any:
        """The whole reply envelope."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = await self.client.request(f"htdag.v1.executor.run.{verb}", data, timeout=15)
        return json.loads(reply.data)

    async def value(self, verb: str, body: Any) -> Any:
        """The value of a good reply."""
        reply = await self.ask(verb, body)
        assert reply["ok"], reply
        return reply["value"]

    async def code(self, verb: str, body: Any) -> str:
        """The code of a refusal."""
        reply = await self.ask(verb, body)
        assert not reply["ok"], reply
        return str(reply["error"]["code"])

    async def ended(self, run_id: str, timeout_s: float = 30) -> Any:
        """The view of a run once it is over."""

        async def over() -> Any:
            view = await self.value("get", {"run_id": run_id})
            return view if view["status"] in FINAL else None

        return await eventually(over, timeout_s=timeout_s, interval_s=0.05)


@pytest.fixture
async def executor(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    process = ServiceProcess("executor", nats_server, tmp_path / "home")
    process.start()
    await process.ready()
    yield process
    process.kill()


@pytest.fixture
async def caller(nats_server: NatsServer, executor: ServiceProcess) -> AsyncIterator[Caller]:
    client = await nats.connect(nats_server.url)
    yield Caller(client)
    await client.close()


@pytest.fixture
async def responder(nats_server: NatsServer) -> AsyncIterator[Callable[[float], list[str]]]:
    """Answers `work.do` after a while; gives the ids it was called with."""
    client = await nats.connect(nats_server.url)
    calls: list[str] = []
    delay = [0.0]

    loop = asyncio.get_running_loop()
    working: set[asyncio.Task[None]] = set()
    timers: list[asyncio.TimerHandle] = []

    def answer(message: Msg) -> None:
        task = loop.create_task(message.respond(json.dumps({"did": json.loads(message.data)}).encode()))
        working.add(task)
        task.add_done_callback(working.discard)

    async def take(message: Msg) -> None:
        calls.append((message.headers or {}).get("Nats-Msg-Id", ""))
        timers.append(loop.call_later(delay[0], answer, message))

    await listen(client, "work.do", take)

    def slow_by(seconds: float) -> list[str]:
        delay[0] = seconds
        return calls

    yield slow_by
    for timer in timers:
        timer.cancel()
    await client.close()


async def test_a_run_of_all_local_nodes_is_carried_out(caller: Caller, responder: Callable[[float], list[str]]):
    calls = responder(0)
    tasks = [
        {"id": "n", "node": NOOP},
        {"id": "l", "depends_on": ["n"], "node": {"type": "lua", "src": "return {sum = context.results.n.n + 1}"}},
        {"id": "g", "depends_on": ["l"], "node": {"type": "group"}},
        {"id": "c", "parent": "g", "node": {"type": "nats", "subject": "work.do", "payload": {"x": 2}}},
    ]
    started = await caller.value("start", {"run_id": "r1", "goal": "All of them", "tasks": tasks})
    assert (started["run_id"], started["total"]) == ("r1", 4)
    view = await caller.ended("r1")
    assert view["status"] == "completed", view
    result = await caller.value("result", {"run_id": "r1"})
    assert result["results"] == {
        "n": {"n": 1},
        "l": {"sum": 2},
        "c": {"did": {"x": 2}},
        "g": {"decomposed": True, "subtask_count": 1},
    }
    assert calls == ["r1/c/1"]
    assert await caller.value("graph", {"run_id": "r1"}) == dict.fromkeys("nlgc", "completed")
    replay = await caller.value("replay", {"run_id": "r1"})
    assert (replay["equal"], replay["order_ok"], replay["llm_calls"]) == (True, True, 0)
    audit = await caller.value("audit", {"run_id": "r1"})
    assert (audit["duplicates"], audit["tasks_completed_twice"], audit["open_waits"]) == (0, 0, 0)
    assert [run["run_id"] for run in await caller.value("list", {})] == ["r1"]


async def test_the_same_start_attaches_and_another_plan_is_refused(caller: Caller):
    start = {"run_id": "r1", "tasks": [{"id": "a", "node": NOOP}]}
    await caller.value("start", start)
    assert (await caller.value("start", start))["run_id"] == "r1"
    assert await caller.code("start", {"run_id": "r1", "tasks": [{"id": "b", "node": NOOP}]}) == "duplicate_id"


REFUSALS = [
    ("start", {"tasks": [{"id": "a", "depends_on": ["b"]}, {"id": "b", "depends_on": ["a"]}]}, "cycle"),
    ("start", {"tasks": [{"id": "a", "depends_on": ["b"]}]}, "unknown_dependency"),
    ("start", {"tasks": [{"id": "a"}, {"id": "a"}]}, "duplicate_id"),
    ("start", {"tasks": [{"id": "a b"}]}, "bad_id"),
    ("start", {"tasks": [{"id": "a", "role": "king"}]}, "unknown_role"),
    ("start", {"tasks": []}, "bad_request"),
    ("start", {"tasks": [{"id": 5}]}, "bad_request"),
    ("start", {"run_id": "a.b", "tasks": [{"id": "a"}]}, "bad_id"),
    ("start", {"run_id": "epic-foo", "tasks": [{"id": "a", "node": NOOP}]}, "bad_id"),
    ("start", {"tasks": [{"id": "a"}], "strategy": "nobody"}, "strategy_not_found"),
    ("start", {"tasks": [{"id": "a"}], "strategy": "a b@1"}, "strategy_not_found"),
    ("start", {"tasks": [{"id": "a"}], "epic_id": "nobody"}, "epic_not_found"),
    ("start", {"tasks": [{"id": "a"}], "epic_id": "a.b"}, "bad_id"),
    ("start", {"tasks": [{"id": "a", "node": {"type": "nats", "subject": "htdag.v1.x"}}]}, "forbidden_subject"),
    ("start", b"no json", "bad_json"),
    ("get", {"run_id": "nobody"}, "run_not_found"),
    ("cancel", {"run_id": "nobody"}, "run_not_found"),
    ("resume", {"run_id": "nobody"}, "run_not_found"),
    ("result", {"run_id": "nobody"}, "run_not_found"),
    ("replay", {"run_id": "nobody"}, "run_not_found"),
    ("audit", {"run_id": "nobody"}, "run_not_found"),
    ("waits", {"run_id": "nobody"}, "run_not_found"),
    ("list", {"limit": 0}, "bad_request"),
]


async def test_refusals(caller: Caller):
    assert [(verb, body, await caller.code(verb, body)) for verb, body, _ in REFUSALS] == REFUSALS


async def test_a_strategy_of_no_name_at_all_is_refused_at_once(caller: Caller):
    async with asyncio.timeout(STRATEGY_WAIT_S / 2):
        assert await caller.code("start", {"tasks": [{"id": "a"}], "strategy": "zz@9"}) == "strategy_not_found"


async def test_a_run_of_an_epic_that_the_planner_has_written_begins(caller: Caller):
    await caller.client.jetstream().publish("htdag.v1.evt.planner.epic.auth", b"{}", stream="HTDAG_EVT_PLANNER")
    for epic_id in ("auth", "default"):
        start = {"run_id": epic_id, "epic_id": epic_id, "tasks": [{"id": "a", "node": NOOP}]}
        assert (await caller.value("start", start))["run_id"] == epic_id


async def test_a_run_waits_visibly_is_cancelled_and_resumed(caller: Caller, responder: Callable[[float], list[str]]):
    responder(20)
    tasks = [{"id": "slow", "node": {"type": "nats", "subject": "work.do", "timeout_ms": 30_000}}]
    await caller.value("start", {"run_id": "r1", "tasks": tasks})
    waits = await caller.value("waits", {})
    assert [(wait["run_id"], wait["task_id"], wait["kind"]) for wait in waits] == [("r1", "slow", "nats")]
    cancelled = await caller.value("cancel", {"run_id": "r1", "reason": "enough"})
    assert cancelled["status"] == "cancelled"
    assert await caller.code("cancel", {"run_id": "r1", "task_id": "nobody"}) == "task_not_found"
    responder(0)
    assert (await caller.value("resume", {"run_id": "r1"}))["status"] == "running"
    assert (await caller.ended("r1"))["status"] == "completed"


async def test_failures_have_codes(caller: Caller):
    tasks = [
        {"id": "err", "node": {"type": "lua", "src": "error('no')"}},
        {"id": "loop", "node": {"type": "lua", "src": "while true do end", "timeout_ms": 300}},
        {"id": "silent", "max_attempts": 1, "node": {"type": "nats", "subject": "nobody.home"}},
        {"id": "late", "timeout_ms": 200, "node": {"type": "lua", "src": "while true do end", "timeout_ms": 20_000}},
        {"id": "after", "depends_on": ["err"], "node": NOOP},
    ]
    await caller.value("start", {"run_id": "r1", "tasks": tasks})
    view = await caller.ended("r1")
    found = {task["id"]: task.get("error", {}).get("code", task["status"]) for task in view["tasks"]}
    assert found == {
        "err": "lua_error",
        "loop": "lua_timeout",
        "silent": "no_responders",
        "late": "timeout",
        "after": "blocked",
    }


async def test_a_message_that_cannot_be_read_becomes_a_dead_letter(caller: Caller):
    stream = caller.client.jetstream()
    await stream.publish("htdag.v1.cmd.executor.run.r9.start", b"not a command")
    await stream.publish(
        "htdag.v1.cmd.executor.run.r9.result", b'{"type":"run.result.v1","task_id":"a","attempt":1,"step":"body"}'
    )

    async def put_aside() -> bool:
        info = await stream.stream_info("HTDAG_DLQ")
        return info.state.messages == 2

    await eventually(put_aside, timeout_s=10)
    assert await caller.code("get", {"run_id": "r9"}) == "run_not_found"


async def test_kill_9_in_the_middle_loses_nothing_and_repeats_no_task(
    caller: Caller, executor: ServiceProcess, responder: Callable[[float], list[str]]
):
    calls = responder(0.02)
    tasks = [
        {"id": f"t{n}", "depends_on": [f"t{n - 1}"] if n else [], "node": {"type": "nats", "subject": "work.do"}}
        for n in range(60)
    ]
    await caller.value("start", {"run_id": "r1", "tasks": tasks})
    for progress in (5, 20):
        await eventually(lambda least=progress: len(calls) > least, timeout_s=20)
        executor.kill()
        executor.start()
        await executor.ready()
    view = await caller.ended("r1")
    assert view["status"] == "completed"
    replay = await caller.value("replay", {"run_id": "r1"})
    assert (replay["equal"], replay["order_ok"]) == (True, True)
    audit = await caller.value("audit", {"run_id": "r1"})
    assert audit["tasks_completed_twice"] == 0
    # What was called again after a crash carried the id it had before, so the responder could have known.
    assert len(set(calls)) == 60
    assert len(calls) <= 62


async def test_soft_stop_hands_over_without_a_failure(
    caller: Caller, executor: ServiceProcess, responder: Callable[[float], list[str]]
):
    responder(0.5)
    tasks = [
        {"id": "a", "node": {"type": "nats", "subject": "work.do"}},
        {"id": "b", "depends_on": ["a"], "node": NOOP},
    ]
    await caller.value("start", {"run_id": "r1", "tasks": tasks})
    assert executor.terminate() == 0
    executor.start()
    await executor.ready()
    view = await caller.ended("r1")
    assert view["status"] == "completed"
    assert {task["id"]: task["attempt"] for task in view["tasks"]} == {"a": 1, "b": 1}


async def test_a_run_whose_timer_was_lost_is_woken_after_a_restart(caller: Caller, executor: ServiceProcess):
    tasks = [{"id": "a", "max_attempts": 10, "node": {"type": "nats", "subject": "work.later"}}]
    await caller.value("start", {"run_id": "r1", "tasks": tasks})
    stream = caller.client.jetstream()

    async def at_rest() -> bool:
        timers = await stream.stream_info("HTDAG_TIMERS")
        inputs = await stream.consumer_info("HTDAG_CMD", f"executor-{partition('r1')}")
        return timers.state.messages > 0 and not inputs.num_ack_pending and not inputs.num_pending

    await eventually(at_rest, timeout_s=10)
    executor.kill()
    await stream.purge_stream("HTDAG_TIMERS")
    await listen(caller.client, "work.later", lambda message: message.respond(b"{}"))
    executor.start()
    await executor.ready()
    view = await caller.ended("r1", timeout_s=30)
    assert (view["status"], view["tasks"][0]["attempt"] > 1) == ("completed", True)


async def test_a_resume_that_is_delivered_again_later_begins_nothing(caller: Caller):
    tasks = [{"id": "a", "node": {"type": "lua", "src": "error('no')"}}]
    await caller.value("start", {"run_id": "r1", "tasks": tasks})
    await caller.ended("r1")
    await caller.value("resume", {"run_id": "r1"})
    assert (await caller.ended("r1"))["tasks"][0]["attempt"] == 2
    stream = caller.client.jetstream()
    stored = await stream.get_last_msg("HTDAG_CMD", f"htdag.v1.in.{partition('r1')}.executor.run.r1.resume")
    answers = await caller.client.subscribe("_INBOX.again")
    await stream.publish(
        "htdag.v1.cmd.executor.run.r1.resume", stored.data or b"", headers={"Htdag-Reply-To": answers.subject}
    )
    refused = json.loads((await answers.next_msg(timeout=10)).data)
    assert refused["error"]["code"] == "conflict"
    assert (await caller.ended("r1"))["tasks"][0]["attempt"] == 2


async def test_a_plan_that_is_refused_and_waited_for_by_nobody_becomes_a_dead_letter(caller: Caller):
    await caller.value("start", {"run_id": "r1", "tasks": [{"id": "a", "node": NOOP}]})
    stream = caller.client.jetstream()
    more = {"type": "run.add.v1", "run_id": "r1", "tasks": [{"id": "b", "node": NOOP}]}
    await stream.publish("htdag.v1.cmd.executor.run.r1.add", json.dumps(more).encode())

    async def put_aside() -> bool:
        return (await stream.stream_info("HTDAG_DLQ")).state.messages == 1

    await eventually(put_aside, timeout_s=10)
    letter = await stream.get_msg("HTDAG_DLQ", seq=1)
    assert "already_finished" in str(letter.headers)
