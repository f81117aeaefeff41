"""Story 6, its money: an epic with a budget, two executors and two workers, and every place says the same sum."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.reply import RemoteRejected
from contracts.subjects import rpc
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.linked import linked
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.timeout(180)

LIMITS = '{"usd_per_day":100,"requests_per_minute":1000,"concurrent":10}'
CENT = "mock:price=0.01/call"


@pytest.fixture
async def bus(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Bus]:
    services = [
        ServiceProcess(name, nats_server, tmp_path / f"{name}-{number}", HTDAG_LLM_WORKER__LIMITS=LIMITS)
        for name, number in (("planner", 1), ("executor", 1), ("executor", 2), ("llm-worker", 1), ("llm-worker", 2))
    ]
    for service in services:
        service.start()
    for service in services:
        await service.ready()
    async with linked(nats_server.url) as bus:
        yield bus
    for service in services:
        service.kill()


async def call(bus: Bus, where: str, **body: Any) -> Any:
    return await bus.call(rpc(*where.split(".")), body)


async def over(bus: Bus, run_id: str) -> Any:
    async def view() -> Any:
        try:
            run = await call(bus, "executor.run.get", run_id=run_id)
        except RemoteRejected:
            return None  # its first message has not arrived
        states = Counter(task["status"] for task in run["tasks"])
        return run if states and not states.keys() & {"pending", "in_progress"} else None

    return await eventually(view, timeout_s=60, interval_s=0.05)


def asking(count: int, **more: Any) -> list[dict[str, Any]]:
    node = {"type": "llm", "model": CENT, "prompt": "Say hello.", "params": {"max_tokens": 100}}
    return [{"id": f"t{number}", "node": node, **more} for number in range(count)]


async def ended(bus: Bus, run_id: str) -> Counter[str]:
    run = await over(bus, run_id)
    return Counter(task.get("error", {}).get("code", task["status"]) for task in run["tasks"])


async def test_an_epic_spends_its_budget_and_not_a_cent_more_and_goes_on_when_it_is_raised(bus):
    await call(
        bus, "planner.epic.create", title="Cheap", epic_id="ep-1", budget_usd_micros=50_000, budget_tokens=10_000
    )
    await call(bus, "planner.task.enqueue", epic_id="ep-1", tasks=asking(10), options={"parallel": 10})
    assert await ended(bus, "epic-ep-1") == {"completed": 5, "epic_budget_exceeded": 5}
    run = await call(bus, "executor.run.get", run_id="epic-ep-1")
    error = next(task["error"] for task in run["tasks"] if task["status"] == "failed")
    shown = {"scope": "epic", "budget_usd": 0.05, "spent": 0.05, "reserved": 0.0, "needed": 0.01}
    assert shown.items() <= error.items()
    await agree(bus, 50_000, 5)

    await call(bus, "planner.epic.update", epic_id="ep-1", budget_usd_micros=200_000)
    await call(bus, "executor.run.resume", run_id="epic-ep-1")
    assert await ended(bus, "epic-ep-1") == {"completed": 10}
    await agree(bus, 100_000, 10)  # nothing was repeated


async def test_a_recorded_answer_costs_no_budget_and_needs_none(bus):
    """What is left is less than one call may use: it is enough for answers that were paid, and for nothing else."""
    params = {"max_tokens": 30, "cache": True}

    def asking_for(prompt: str, after: str = "") -> dict[str, Any]:
        node = {"type": "llm", "model": "mock:tokens=30,price=0.01/call", "prompt": prompt, "bare": True}
        return {"max_attempts": 1, "depends_on": [after] if after else [], "node": {**node, "params": params}}

    tasks = [
        {"id": "paid", **asking_for("Name a colour")},
        {"id": "recorded", **asking_for("Name a colour", "paid")},
        {"id": "again", **asking_for("Name a colour", "recorded")},
        {"id": "new", **asking_for("Name a shape", "again")},
    ]
    await call(bus, "planner.epic.create", title="Tight", epic_id="tight", budget_usd_micros=15_000, budget_tokens=60)
    await call(bus, "planner.task.enqueue", epic_id="tight", tasks=tasks)
    assert await ended(bus, "epic-tight") == {"completed": 3, "epic_budget_exceeded": 1}
    run = await call(bus, "executor.run.get", run_id="epic-tight")
    used = {task["id"]: (task.get("tokens", 0), task.get("cost_usd_micros", 0)) for task in run["tasks"]}
    assert used == {"paid": (run["tokens"], 10_000), "recorded": (0, 0), "again": (0, 0), "new": (0, 0)}
    ledger = await call(bus, "llm-worker.llm.ledger", epic_id="tight")
    assert [row["task_id"] for row in ledger["rows"] if row["status"] == "paid"] == ["paid"]
    assert (ledger["tokens"], ledger["cost_usd_micros"], ledger["reserved"]) == (run["tokens"], 10_000, 0)
    result = await call(bus, "executor.run.result", run_id="epic-tight")
    assert result["results"]["paid"] == result["results"]["recorded"] == result["results"]["again"]


async def agree(bus: Bus, micros: int, calls: int) -> None:
    """Ledger, run, tasks, epic and limits say the same."""
    ledger = await call(bus, "llm-worker.llm.ledger", epic_id="ep-1")
    assert (ledger["cost_usd_micros"], ledger["calls"], ledger["reserved"]) == (micros, calls, 0)
    assert sum(row.get("cost_usd_micros") or 0 for row in ledger["rows"]) == micros
    by_task = Counter({row["task_id"]: row["cost_usd_micros"] for row in ledger["rows"] if row["status"] == "paid"})
    run = await call(bus, "executor.run.get", run_id="epic-ep-1")
    assert (run["cost_usd_micros"], run["tokens"]) == (micros, ledger["tokens"])
    assert (
        Counter({task["id"]: task["cost_usd_micros"] for task in run["tasks"] if task.get("cost_usd_micros")})
        == by_task
    )

    async def epic() -> bool:
        seen = await call(bus, "planner.epic.get", epic_id="ep-1")
        return (seen.get("spent_usd_micros"), seen.get("spent_tokens")) == (micros, ledger["tokens"])

    await eventually(epic)
    limits = await call(bus, "llm-worker.llm.limits")
    assert (limits["spent_usd_micros"], limits["reserved_usd_micros"], limits["calls"]) == (micros, 0, calls)


async def test_calls_that_are_stopped_are_spent_by_task_run_and_epic_as_the_ledger_says(bus):
    """One with its task, whose time is over, one with its run; whatever is stopped may have cost something."""
    await call(bus, "planner.epic.create", title="Stopped", epic_id="stopped")
    heard: list[Any] = []
    await bus.subscribe("llm.tokens.cut.*", heard.append)
    slow = {"model": "mock:price=0.01/call,stream_delay=50ms,tokens=400", "prompt": "x", "params": {"stream": True}}
    tasks: list[dict[str, Any]] = [{"id": name, "node": {"type": "llm", **slow}} for name in ("late", "t")]
    tasks[0] |= {"timeout_ms": 2_000, "max_attempts": 1}
    await call(bus, "executor.run.start", run_id="cut", epic_id="stopped", tasks=tasks)
    await eventually(lambda: {message.subject for message in heard} == {"llm.tokens.cut.late", "llm.tokens.cut.t"})

    async def timed_out() -> bool:
        tasks = (await call(bus, "executor.run.get", run_id="cut"))["tasks"]
        return any(task["status"] == "failed" and task.get("cost_usd_micros") == 10_000 for task in tasks)

    await eventually(timed_out)
    await call(bus, "executor.run.cancel", run_id="cut")

    async def paid() -> Any:
        ledger = await call(bus, "llm-worker.llm.ledger", run_id="cut")
        return ledger if ledger["calls"] == 2 and not ledger["reserved"] else None

    ledger = await eventually(paid, timeout_s=20)
    assert ledger["cost_usd_micros"] == 20_000

    async def told() -> bool:
        epic = await call(bus, "planner.epic.get", epic_id="stopped")
        run = await call(bus, "executor.run.get", run_id="cut")
        assert (run["cost_usd_micros"], run["tokens"]) == (20_000, ledger["tokens"])
        return (epic.get("spent_usd_micros"), epic.get("spent_tokens")) == (20_000, ledger["tokens"])

    await eventually(told)
    run = await call(bus, "executor.run.get", run_id="cut")
    assert {task["id"]: task["cost_usd_micros"] for task in run["tasks"]} == {"late": 10_000, "t": 10_000}
    assert (await call(bus, "executor.run.audit", run_id="cut"))["llm_calls_paid"] == 2
    assert (await call(bus, "executor.run.replay", run_id="cut"))["equal"]


async def test_a_task_whose_epic_has_nothing_left_fails_without_a_call(bus):
    await call(bus, "planner.epic.create", title="Poor", epic_id="poor", budget_usd_micros=9_999)
    await call(bus, "planner.task.enqueue", epic_id="poor", tasks=asking(1))
    assert await ended(bus, "epic-poor") == {"epic_budget_exceeded": 1}
    assert (await call(bus, "llm-worker.llm.ledger", epic_id="poor"))["calls"] == 0


async def test_runs_and_tasks_have_budgets_of_their_own(bus):
    tasks = [*asking(3), *(dict(task, id=f"own-{task['id']}", budget_usd_micros=5_000) for task in asking(2))]
    await call(bus, "executor.run.start", run_id="r1", tasks=tasks, options={"budget_usd_micros": 20_000})
    codes = await ended(bus, "r1")
    assert codes == {"completed": 2, "budget_exceeded": 3}
    run = await call(bus, "executor.run.get", run_id="r1")
    scopes = {task["id"]: task["error"]["scope"] for task in run["tasks"] if task["status"] == "failed"}
    assert {scopes["own-t0"], scopes["own-t1"]} == {"task"}
    assert Counter(scopes.values()) == {"task": 2, "run": 1}
    assert json.loads(json.dumps(run))["cost_usd_micros"] == 20_000
