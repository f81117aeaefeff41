"""A plan that is started as it stands gets a strategy as a goal does; the fallback works only when none matches."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

SPAWN = 'return {agents = {{role = "coder", model = "mock"}}, collaboration_pattern = "solo"}'
NOOP = {"id": "a", "node": {"type": "noop"}}


class Desk:
    """Plain requests to both services, and what stands in the log of a run."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def ask(self, verb: str, body: Any) -> Any:
        reply = await self.client.request(f"htdag.v1.{verb}", json.dumps(body).encode(), timeout=15)
        return json.loads(reply.data)

    async def started(self, run_id: str, *tasks: dict[str, Any], **wishes: Any) -> Any:
        """The event with which a run began."""
        reply = await self.ask("executor.run.start", {"run_id": run_id, "tasks": tasks, **wishes})
        assert reply["ok"], reply
        return (await self.events(run_id))[0]

    async def events(self, run_id: str) -> list[Any]:
        stream = self.client.jetstream()
        found: list[Any] = []
        subject = f"htdag.v1.evt.executor.run.{run_id}"
        last = (await stream.get_last_msg("HTDAG_EVT_EXECUTOR", subject)).seq
        seq = 1
        while seq <= last:
            message = await stream.get_msg("HTDAG_EVT_EXECUTOR", seq=seq, subject=subject, next=True)
            found += json.loads(message.data)["events"]
            seq = message.seq + 1
        return found


@pytest.fixture
async def services(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[dict[str, ServiceProcess]]:
    made = {name: ServiceProcess(name, nats_server, tmp_path / name) for name in ("planner", "executor")}
    for process in made.values():
        process.start()
    await asyncio.gather(*(process.ready() for process in made.values()))
    yield made
    for process in made.values():
        process.kill()


@pytest.fixture
async def desk(nats_server: NatsServer, services: dict[str, ServiceProcess]) -> AsyncIterator[Desk]:
    client = await nats.connect(nats_server.url)
    yield Desk(client)
    await client.close()


async def test_a_plan_gets_the_strategy_that_matches(desk, services):
    hot = {"name": "hot", "pattern": "hot", "priority": 50, "scripts": {"spawn": SPAWN}}
    assert (await desk.ask("planner.strategy.put", hot))["ok"]
    mild, burning = {"id": "mild", "description": "mild task"}, {"id": "hot", "description": "hot task"}
    assert (await desk.started("mild", mild))["strategy"] == "standard@1"
    # One strategy holds for the whole run: the highest priority that matches any task of an agent.
    assert (await desk.started("both", mild, burning))["strategy"] == "hot@1"
    assert (await desk.started("goal", mild, goal="a hot goal"))["strategy"] == "hot@1"
    assert (await desk.started("named", burning, strategy="standard"))["strategy"] == "standard@1"
    assert "strategy" not in await desk.started("none", burning, strategy="none")
    assert "strategy" not in await desk.started("noop", {**NOOP, "description": "hot task"})

    async def spawned() -> Any:
        return next((event for event in await desk.events("both") if event["type"] == "task.agents_spawned.v1"), None)

    assert "fallback" not in await eventually(spawned)


async def test_what_needs_no_strategy_needs_no_planner(desk, services):
    services["planner"].kill()
    assert "strategy" not in await desk.started("noop", NOOP)
    agent = {"id": "a", "description": "hot task"}
    assert "strategy" not in await desk.started("none", agent, strategy="none")
    refused = await desk.ask("executor.run.start", {"run_id": "agent", "tasks": [agent]})
    assert (refused["error"]["code"], refused["error"]["service"]) == ("service_unavailable", "planner")
    assert "none" in refused["error"]["hint"]


async def test_none_is_no_name_of_a_strategy_and_no_strategy_for_goals_and_tasks(desk, services):
    put = {"name": "none", "scripts": {"spawn": SPAWN}}
    assert (await desk.ask("planner.strategy.put", put))["error"]["code"] == "bad_id"
    plan = await desk.ask("planner.goal.plan", {"goal": "Build it", "strategy": "none"})
    assert plan["value"]["strategy"] is None
    assert len(plan["value"]["tasks"]) == 1
