"""Snapshots of runs on a real broker: written by one host, read by another, ignored when they are broken."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from contracts import streams, subjects
from contracts.codec import CommitCodec
from contracts.run import RunEvent, RunOptions, StartRun, TakeResult
from contracts.task import NoopNode, TaskSpec
from services.executor.run import snapshot
from services.executor.run.decider import RUN
from services.executor.run.effects import RunNoop
from services.executor.run.state import Run, digest
from services.executor.views import view_of
from services.runtime.actor import ActorHost
from services.runtime.bus import Bus
from services.runtime.clock import SystemClock
from services.runtime.event_store import Recorded
from services.runtime.host_limits import HostLimits
from services.runtime.ids import CountingIds
from services.runtime.jetstream import JetStreamEventStore
from services.runtime.snapshots import HEADER_AT_SEQ, HEADER_FORMAT, JetStreamSnapshots
from tests.support.eventually import eventually

SUBJECT = subjects.events("executor", "run", "r1")
BESIDE = subjects.snapshot("executor", "run", "r1")
TASKS = 40


class WatchedStore(JetStreamEventStore):
    """Remembers which commits were read."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus, streams.EVENTS_EXECUTOR)
        self.was_read: list[int] = []

    async def read(self, subject: str, after: int = 0) -> AsyncIterator[Recorded]:
        async for record in super().read(subject, after):
            self.was_read.append(record.seq)
            yield record


class Bodies:
    """Ends bodies one by one, until it is told to end no more."""

    def __init__(self, ends: int) -> None:
        self.ends = ends
        self.begun: list[str] = []

    def start(self, actor_id: str, effect: Any, done: Callable[[Any], None]) -> None:
        assert isinstance(effect, RunNoop)
        self.begun.append(effect.task_id)
        if self.ends:
            self.ends -= 1
            done(TakeResult(effect.task_id, effect.attempt, "body", effect.result))


class Executor:
    """As much of an executor as keeps runs."""

    def __init__(self, bus: Bus, *, ends: int = 0, every: int = 10) -> None:
        self.store, self.lines, self.bodies = WatchedStore(bus), list[str](), Bodies(ends)
        codec: CommitCodec[RunEvent] = CommitCodec(RunEvent)
        self.host: ActorHost[Any, Run, RunEvent] = ActorHost(
            service="executor",
            aggregate="run",
            decider=RUN,
            codec=codec,
            store=self.store,
            clock=SystemClock(),
            ids=CountingIds(),
            effects=self.bodies,
            snapshots=JetStreamSnapshots(
                bus,
                format_id=snapshot.FORMAT,
                dump=snapshot.dump,
                restore=snapshot.restore,
                bytes_max=bus.payload_max // 2,
                log=self.lines.append,
            ),
            limits=HostLimits(snapshot_every_events=every),
        )

    def there(self) -> Run | None:
        """The run, when it is here and no turn is under way."""
        return self.host.states().get("r1")

    def over(self) -> bool:
        run = self.there()
        return run is not None and run.status == "completed"

    async def begin(self) -> None:
        tasks = [TaskSpec(id=f"t{number}", node=NoopNode(result={"n": number})) for number in range(TASKS)]
        await self.host.ask("r1", StartRun("r1", tasks=tasks, options=RunOptions(parallel=1)))


async def half_done(bus: Bus) -> tuple[Executor, Recorded]:
    """An executor whose run has stopped in the middle, and the snapshot that it has written last."""
    first = Executor(bus, ends=TASKS // 2)
    await first.begin()
    await eventually(lambda: len(first.bodies.begun) == TASKS // 2 + 1)
    await eventually(first.there)

    async def kept() -> Recorded | None:
        found = await bus.last(streams.SNAPSHOTS, BESIDE)
        newest = await bus.last(streams.EVENTS_EXECUTOR, SUBJECT)
        assert newest is not None
        return found if found is not None and newest.seq - int(found.headers[HEADER_AT_SEQ]) < 10 else None

    return first, await eventually(kept)


async def test_a_second_host_goes_on_from_snapshot_and_tail(bus: Bus) -> None:
    first, kept = await half_done(bus)
    at_seq = int(kept.headers[HEADER_AT_SEQ])
    assert (kept.headers[HEADER_FORMAT], at_seq > 10) == (snapshot.FORMAT, True)
    second = Executor(bus, ends=TASKS)
    state, seq = await second.host.read("r1")
    assert second.store.was_read == [*range(at_seq, seq + 1)]
    assert view_of(state, seq) == view_of(await eventually(first.there), seq)
    await second.host.ask("r1", RUN.time_command(0) if RUN.time_command else None)
    await eventually(second.over)
    assert second.bodies.begun == [f"t{number}" for number in range(TASKS // 2, TASKS)]
    assert second.lines == []
    ended, _ = await second.host.read("r1")
    assert digest(ended) == ended.recorded_digest


@pytest.mark.parametrize(
    ("spoil", "headers"),
    [
        (lambda data: data[:-7], {}),
        (lambda data: b"\x00" * len(data), {}),
        (lambda data: data, {HEADER_FORMAT: "run-0"}),
        (lambda data: data, {HEADER_AT_SEQ: "100000"}),
    ],
)
async def test_a_broken_snapshot_breaks_no_run(
    spoil: Callable[[bytes], bytes], headers: dict[str, str], bus: Bus
) -> None:
    first, kept = await half_done(bus)
    said = {name: kept.headers[name] for name in (HEADER_AT_SEQ, HEADER_FORMAT)}
    await bus.store(BESIDE, spoil(kept.data), stream=streams.SNAPSHOTS, msg_id="spoilt", headers={**said, **headers})
    second = Executor(bus)
    state, seq = await second.host.read("r1")
    assert view_of(state, seq) == view_of(await eventually(first.there), seq)
    assert 1 in second.store.was_read
    assert len(second.lines) == (0 if HEADER_AT_SEQ in headers else 1)


async def test_only_the_newest_snapshot_is_kept(bus: Bus) -> None:
    first = Executor(bus, ends=TASKS)
    await first.begin()
    await eventually(first.over)
    await eventually(lambda: _one(bus))


async def _one(bus: Bus) -> bool:
    return await bus.subjects(streams.SNAPSHOTS, BESIDE) == {BESIDE: 1}
