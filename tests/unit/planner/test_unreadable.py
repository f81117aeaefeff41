"""Records that nobody can read: told once, passed over, and everything behind them is there."""

import json
from pathlib import Path

import pytest

from contracts.commit import HEADER_SUMMARY, Commit
from contracts.epic import EpicEvent, GoalPlanned
from contracts.run import RunCreated, TasksAdded, TaskStarted
from contracts.strategy import StrategyBody, StrategyPut
from contracts.streams import EVENTS_EXECUTOR, EVENTS_PLANNER
from contracts.subjects import events as event_subject
from contracts.task import TaskSpec
from services.planner.epic_reading import EPIC_CODEC
from services.planner.strategy_book import STRATEGY_CODEC
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess
from tests.unit.planner.desk import GOAL, Desk

DEEP = b'{"at":"","by":"","cause":"","corr":"","events":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HALF = (
    b'{"at":"","by":"","cause":"","corr":"","events":[{"type":"goal.planned.v1"},{"type":"strategy.put.v1"},'
    b'{"type":"tasks.added.v1","tasks":7}]}'
)
PAST = "2020-02-02T20:02:02.020Z"
UNREADABLE = (b"", b"not json", b"[1]", DEEP, HALF)
SUMMARIES = ("", "no json", "[" * 50_000, '{"total":"many"}', '{"epic_id":[]}', '{"title":7}')


async def spoil(desk: Desk, stream: str, subject: str) -> int:
    """Store what nobody can read behind everything that stands there; how many records."""
    bad = [(data, {}) for data in UNREADABLE] + [(b"?", {HEADER_SUMMARY: text}) for text in SUMMARIES]
    for number, (data, headers) in enumerate(bad):
        await desk.bus.store(subject, data, stream=stream, msg_id=f"bad{subject}{number}", headers=headers)
    return len(bad)


async def spoil_everything(desk: Desk) -> None:
    for stream, service, aggregate, names in (
        (EVENTS_PLANNER, "planner", "epic", ("default", "ghost")),
        (EVENTS_PLANNER, "planner", "strategy", ("standard", "ghost")),
        (EVENTS_EXECUTOR, "executor", "run", ("r1", "epic-default", "ghost")),
    ):
        for name in names:
            await spoil(desk, stream, event_subject(service, aggregate, name))


async def plant_plan(desk: Desk, run_id: str, at: str = PAST) -> None:
    """A plan that a planner, dead since, committed and did not hand over."""
    planned: list[EpicEvent] = [GoalPlanned(run_id=run_id, goal=GOAL, strategy=None, tasks=[TaskSpec(id="a")])]
    data = EPIC_CODEC.encode(Commit(at=at, by="", cause="", corr="", events=planned))
    subject = event_subject("planner", "epic", "auth")
    await desk.bus.store(subject, data, stream=EVENTS_PLANNER, msg_id=f"plan-{run_id}")


def told(planner: ServiceProcess) -> list[tuple[str, str, int]]:
    """Who said of which record that it cannot be read."""
    lines = [json.loads(line) for line in planner.log_path.read_text().splitlines() if line.startswith("{")]
    assert all(line["level"] == "error" for line in lines if line["msg"] == "record_unreadable")
    return [(line["reader"], line["subject"], line["seq"]) for line in lines if line["msg"] == "record_unreadable"]


@pytest.mark.timeout(90)
async def test_a_planner_starts_on_a_log_full_of_unreadable_records_and_hands_over_what_stands_behind(
    desk: Desk, planner: ServiceProcess
):
    plan = await desk.ask("goal.submit", goal=GOAL, run_id="r1")
    await desk.ask("task.enqueue", task={"id": "a"})
    await desk.run_events("r1", RunCreated(run_id="r1", deadline_at_ms=1), TasksAdded(tasks=[TaskSpec(id="spec")]))
    assert planner.terminate() == 0
    await spoil_everything(desk)
    await plant_plan(desk, "behind")
    await plant_plan(desk, "bad id")
    await desk.run_events("r1", TaskStarted("spec", 1, 9))
    planner.start()
    await planner.ready()

    async def handed_over() -> bool:
        return [command.run_id for command in await desk.commands()] == ["r1", "epic-default", "behind"]

    await eventually(handed_over)
    assert await desk.ask("goal.submit", goal=GOAL, run_id="r1") == plan
    assert await desk.ask("task.status", task_id="spec", run_id="r1") == "in_progress"
    assert await desk.ask("task.status", task_id="a") == "pending"
    assert await desk.ask("task.status", task_id="a") == "pending"
    assert [view["name"] for view in await desk.ask("strategy.list")] == ["standard"]
    assert (await desk.refused("task.enqueue", task={"id": "b"}))["code"] == "poison"
    said = told(planner)
    assert len(said) == len(set(said))
    assert {reader for reader, *_ in said} == {"strategies", "epics", "progress", "sweep", "epic", "run"}


@pytest.mark.timeout(90)
async def test_unreadable_records_that_come_while_a_planner_works_neither_stop_nor_freeze_it(
    nats_server: NatsServer, tmp_path: Path, desk: Desk, planner: ServiceProcess
):
    planner.kill()
    working = ServiceProcess("planner", nats_server, tmp_path / "quick", HTDAG_PLANNER__SWEEP_S="0.2")
    working.start()
    try:
        await working.ready()
        await spoil_everything(desk)
        for run_id, at in (("behind", PAST), ("timeless", "yesterday"), ("last", PAST)):
            await plant_plan(desk, run_id, at)
        put = StrategyPut(name="new", version=1, body=StrategyBody(scripts={}), digest="1")
        data = STRATEGY_CODEC.encode(Commit(at="", by="", cause="", corr="", events=[put]))
        subject = event_subject("planner", "strategy", "new")
        await desk.bus.store(subject, data, stream=EVENTS_PLANNER, msg_id="new1")

        async def all_there() -> bool:
            handed_over = [command.run_id for command in await desk.commands()]
            known = [view["name"] for view in await desk.ask("strategy.list")]
            return handed_over == ["behind", "last"] and known == ["new", "standard"]

        await eventually(all_there)
        assert {reader for reader, *_ in told(working)} == {"strategies", "epics", "progress", "sweep"}
        assert not working.dead
    finally:
        working.kill()
