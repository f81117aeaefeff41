"""Two executors share the runs: one may be killed, stopped softly or frozen, and nothing is lost or done twice."""

import asyncio
import os
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts import streams, subjects
from contracts.codec import CommitCodec
from contracts.limits import PARTITIONS
from contracts.requests import RunStart
from contracts.run import LlmAnswered, RunEvent, TaskCompleted, TaskStarted
from contracts.task import LlmNode, LuaNode, NoopNode, TaskSpec
from services.runtime.app import RunFile
from services.runtime.bus import Bus
from services.runtime.placement import ranks
from tests.faults.test_crash_points import proven
from tests.support.eventually import eventually
from tests.support.linked import linked
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.timeout(180)

RUNS = 20
STEPS_OF_STOPPED = 50
STEPS_OF_FROZEN = 30
FROZEN_S = 12.0
CODEC: CommitCodec[RunEvent] = CommitCodec(RunEvent)
SHARE_MIN = 2


def plan(steps: int) -> list[TaskSpec]:
    """Two chains of calls that take a while, a script, and an end."""
    tasks = [TaskSpec(id="begin", node=NoopNode(result=1))]
    for lane in "xy":
        before = "begin"
        for number in range(steps):
            node = LlmNode(model="mock:delay=300ms", prompt="Go on.")
            tasks.append(TaskSpec(id=f"{lane}{number}", depends_on=[before], node=node))
            before = tasks[-1].id
    ends = [f"{lane}{steps - 1}" for lane in "xy"]
    tasks.append(TaskSpec(id="sum", depends_on=ends, node=LuaNode(src="return {sum = 1 + 1}")))
    return tasks


class Pair:
    """Two executors and a worker on one broker."""

    def __init__(self, server: NatsServer, folder: Path) -> None:
        # So small a distance that every run wakes from a snapshot.
        keeps = {"HTDAG_EXECUTOR__SNAPSHOT_EVERY_EVENTS": "10"}
        self.one = ServiceProcess("executor", server, folder / "one", **keeps)
        self.other = ServiceProcess("executor", server, folder / "other", **keeps)
        self.worker = ServiceProcess("llm-worker", server, folder / "worker")
        self.urls: dict[ServiceProcess, str] = {}

    async def start(self) -> None:
        """Start everybody; chance names the executors, so that one of them may be born again for a fair share."""
        everybody = (self.one, self.other, self.worker)
        for process in everybody:
            process.start()
        while True:
            self.urls = dict(zip(everybody, await asyncio.gather(*(each.ready() for each in everybody)), strict=True))
            share = ranks(self._instance(self.one), frozenset([self._instance(self.other)])).count(0)
            if SHARE_MIN <= share <= PARTITIONS - SHARE_MIN:
                return
            self.other.kill()
            self.other.start()

    def _instance(self, executor: ServiceProcess) -> str:
        files = (executor.log_path.parent / "run").glob("executor-*.json")
        found = (msgspec.json.decode(file.read_bytes(), type=RunFile) for file in files)
        return next(file.instance for file in found if file.pid == executor.pid)

    async def commits(self, executor: ServiceProcess, outcome: str = "stored") -> float:
        """How many commits an executor has made, or lost to the other one."""
        text = await asyncio.to_thread(_fetched, self.urls[executor] + "/metrics")
        name = f'htdag_commits_total{{outcome="{outcome}",stream="{streams.EVENTS_EXECUTOR}"}}'
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)

    async def both_at_work(self, commits: int) -> bool:
        return min(await self.commits(self.one), await self.commits(self.other)) >= commits


def _fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


@pytest.fixture
async def pair(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Pair]:
    pair = Pair(nats_server, tmp_path)
    await pair.start()
    yield pair
    for process in (pair.one, pair.other, pair.worker):
        process.kill()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with linked(nats_server.url) as bus:
        yield bus


async def begun(bus: Bus, steps: int) -> list[str]:
    names = [f"run-{number}" for number in range(RUNS)]
    starts = (RunStart(run_id=name, tasks=plan(steps)) for name in names)
    await asyncio.gather(*(bus.call(subjects.rpc("executor", "run", "start"), start) for start in starts))
    return names


async def history(bus: Bus, run_id: str) -> list[RunEvent]:
    subject = subjects.events("executor", "run", run_id)
    return [
        event
        async for record in bus.history(streams.EVENTS_EXECUTOR, subject)
        for event in CODEC.decode(record.data).events
    ]


async def all_done_once(bus: Bus, names: list[str], steps: int) -> None:
    """Every run completed; no attempt was begun anew, nothing completed and no call was answered twice."""
    for name in names:
        await proven(bus, name)
        events = await history(bus, name)
        begun = Counter((event.task_id, event.attempt) for event in events if isinstance(event, TaskStarted))
        ended = Counter(event.task_id for event in events if isinstance(event, TaskCompleted))
        asked = Counter(event.corr_id for event in events if isinstance(event, LlmAnswered))
        assert set(begun.values()) == set(ended.values()) == set(asked.values()) == {1}
        assert {attempt for _, attempt in begun} == {1}
        assert (len(ended), len(asked)) == (2 * steps + 2, 2 * steps)


async def test_both_take_runs_and_when_one_is_killed_the_other_finishes_them(pair: Pair, bus: Bus) -> None:
    names = await begun(bus, steps=6)
    await eventually(lambda: pair.both_at_work(20), timeout_s=20)
    pair.other.kill()
    before = await lengths(bus, names)
    assert pair.other.exit_code == -signal.SIGKILL
    await all_done_once(bus, names, steps=6)
    assert await all_longer(bus, before), "it was killed when all was done"
    kept = await bus.subjects(streams.SNAPSHOTS, subjects.snapshot("executor", "run", "*"))
    assert len(kept) == RUNS
    assert '"msg":"snapshot"' not in pair.one.log_path.read_text(), "a snapshot was ignored"


async def test_one_that_is_stopped_softly_hands_its_runs_over_at_once_and_may_come_back(pair: Pair, bus: Bus) -> None:
    names = await begun(bus, steps=STEPS_OF_STOPPED)
    await eventually(lambda: pair.both_at_work(40), timeout_s=20)
    await stopped(pair, bus, names)
    pair.other.start()
    pair.urls[pair.other] = await pair.other.ready()
    await eventually(lambda: pair.both_at_work(40), timeout_s=20)
    # Now the first one gets back runs of which it knows only what they were before.
    await stopped(pair, bus, names)
    await all_done_once(bus, names, steps=STEPS_OF_STOPPED)


async def stopped(pair: Pair, bus: Bus, names: list[str]) -> None:
    """Stop one executor softly; every run goes on long before it would be delivered again."""
    began_s = time.monotonic()
    assert await asyncio.to_thread(pair.other.terminate) == 0, pair.other.tail()
    logged = await lengths(bus, names)
    assert time.monotonic() - began_s < 10
    await eventually(lambda: all_longer(bus, logged), timeout_s=10)


async def lengths(bus: Bus, names: list[str]) -> dict[str, int]:
    found = await bus.subjects(streams.EVENTS_EXECUTOR, subjects.events("executor", "run", "*"))
    return {name: found[subjects.events("executor", "run", name)] for name in names}


async def all_longer(bus: Bus, before: dict[str, int]) -> bool:
    now = await lengths(bus, [*before])
    behind = [name for name, length in before.items() if now[name] <= length]
    assert not behind, f"stand still: {behind}"
    return True


async def test_one_that_was_frozen_finds_its_work_done_and_does_it_no_second_time(pair: Pair, bus: Bus) -> None:
    names = await begun(bus, steps=STEPS_OF_FROZEN)
    await eventually(lambda: pair.both_at_work(40), timeout_s=20)
    lost = await pair.commits(pair.other, "conflict")
    os.kill(pair.other.pid, signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    frozen = loop.create_future()
    loop.call_later(FROZEN_S, frozen.set_result, None)
    await frozen
    os.kill(pair.other.pid, signal.SIGCONT)
    await eventually(lambda: lost_more(pair, lost), timeout_s=10)
    await all_done_once(bus, names, steps=STEPS_OF_FROZEN)
    assert not pair.other.dead


async def lost_more(pair: Pair, lost: float) -> bool:
    """Whether the one that woke has tried to write on what it knew before, and was refused."""
    return await pair.commits(pair.other, "conflict") > lost
