"""W1, W2, W3 and replay: runs are started by the public verb and timed by their own events, as a client sees them."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from contracts import streams, subjects
from contracts.commit import HEADER_TYPES
from contracts.errors import Rejected
from contracts.limits import PARALLEL_MAX
from contracts.requests import RunRef, RunStart
from contracts.run import RunEnded, RunOptions, RunView, TaskStarted
from contracts.run_proofs import ReplayReport
from contracts.task import TaskSpec
from services.console import principal
from services.console.bench import workloads
from services.console.bench.figures import percentile, spread

if TYPE_CHECKING:
    from services.runtime.bus import Bus
    from services.runtime.event_store import Recorded

DEADLINE_S: Final = 180.0
ENDED: Final = str(RunEnded.__struct_config__.tag)
STARTED: Final = str(TaskStarted.__struct_config__.tag)


class Watched:
    """One run from the moment it is asked for: when each commit arrived, and when it ended."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.began_s = time.perf_counter()
        self.ended_s = 0.0
        self.starts_s: list[float] = []
        self.over = asyncio.Event()


class RunBench:
    """Starts runs on one instance and watches all of them through one follower."""

    def __init__(self, bus: "Bus") -> None:
        self._bus = bus
        self._watched: dict[str, Watched] = {}
        self._prefix = subjects.events("executor", "run", "")

    async def start(self) -> None:
        """Follow the runs of this instance."""
        await self._bus.follow(streams.EVENTS_EXECUTOR, f"{self._prefix}*", self._saw, after=None, headers_only=True)

    async def run(self, tasks: Sequence[TaskSpec]) -> Watched:
        """Start one run and wait until it has ended."""
        run_id = f"bench-{secrets.token_hex(5)}"
        watched = self._watched[run_id] = Watched(run_id)
        request = RunStart(tasks=list(tasks), run_id=run_id, options=RunOptions(parallel=min(len(tasks), PARALLEL_MAX)))
        async with asyncio.timeout(DEADLINE_S):
            await self._bus.call(
                subjects.rpc("executor", "run", "start"), request, timeout_s=DEADLINE_S, headers=principal.headers()
            )
            await watched.over.wait()
        return watched

    async def check(self, watched: Watched, count: int) -> None:
        """Every task of the run must have completed, or the figures mean nothing."""
        view: RunView = await self._bus.call(
            subjects.rpc("executor", "run", "get"),
            RunRef(watched.run_id),
            timeout_s=60,
            into=RunView,
            headers=principal.headers(),
        )
        if view.status != "completed" or view.counts.get("completed") != count:
            raise Rejected("internal", f"the measured run is {view.status}: {view.counts}", run_id=watched.run_id)

    async def replay(self, watched: Watched) -> ReplayReport:
        """Replay a run that was measured."""
        report: ReplayReport = await self._bus.call(
            subjects.rpc("executor", "run", "replay"),
            RunRef(watched.run_id),
            timeout_s=120,
            into=ReplayReport,
            headers=principal.headers(),
        )
        return report

    def _saw(self, record: "Recorded") -> None:
        watched = self._watched.get(record.subject[len(self._prefix) :])
        if watched is None:
            return
        now = time.perf_counter()
        types = record.headers.get(HEADER_TYPES, "")
        if STARTED in types:
            watched.starts_s.append(now)
        if ENDED in types:
            watched.ended_s = now
            watched.over.set()


async def w1(bench: RunBench, *, n: int | None, reps: int, remote: bool) -> dict[str, Any]:
    """Tasks per second of 1 -> n -> 1 in one run, from the request to the recorded end."""
    count = n or workloads.FAN_DEFAULT
    tasks = workloads.fan(count, remote=remote)
    speeds = []
    for number in range(reps + 1):
        watched = await bench.run(tasks)
        if number:  # the first one warms up
            speeds.append(len(tasks) / (watched.ended_s - watched.began_s))
    await bench.check(watched, len(tasks))
    return {"tasks": len(tasks), "tasks_per_s": spread(speeds, 0)}


async def w2(bench: RunBench, *, n: int | None, reps: int, remote: bool) -> dict[str, Any]:
    """Milliseconds from the recorded start of a task to that of the next, in a chain of n."""
    tasks = workloads.chain(n or workloads.CHAIN_DEFAULT, remote=remote)
    medians, hops = [], []
    for number in range(reps + 1):
        watched = await bench.run(tasks)
        if number:
            between = [(b - a) * 1e3 for a, b in zip(watched.starts_s, watched.starts_s[1:], strict=False)]
            medians.append(percentile(between, 0.5))
            hops += between
    await bench.check(watched, len(tasks))
    return {"tasks": len(tasks), "p50_ms": spread(medians, 3), "p99_ms": round(percentile(hops, 0.99), 3)}


async def w3(bench: RunBench, *, n: int | None, reps: int, remote: bool) -> dict[str, Any]:
    """Tasks per second of n runs at once, ten tasks each."""
    count, tasks = n or workloads.CROWD_DEFAULT, workloads.diamond(remote=remote)
    speeds, latencies = [], []
    for number in range(reps + 1):
        crowd = await asyncio.gather(*(bench.run(tasks) for _ in range(count)))
        if number:
            took_s = max(one.ended_s for one in crowd) - min(one.began_s for one in crowd)
            speeds.append(count * len(tasks) / took_s)
            latencies += [one.ended_s - one.began_s for one in crowd]
    await bench.check(crowd[-1], len(tasks))
    return {
        "runs": count,
        "tasks": count * len(tasks),
        "tasks_per_s": spread(speeds, 0),
        "run_p50_s": round(percentile(latencies, 0.5), 4),
        "run_p99_s": round(percentile(latencies, 0.99), 4),
    }


async def replay(bench: RunBench, *, n: int | None, reps: int) -> dict[str, Any]:
    """Events per second that the stored log of a run is folded with, decoding included."""
    tasks = workloads.fan(n or 20_000, remote=False)
    watched = await bench.run(tasks)
    await bench.check(watched, len(tasks))
    reports = [await bench.replay(watched) for _ in range(reps)]
    must_be_equal(reports)
    return {
        "events": reports[0].events,
        "llm_calls": reports[0].llm_calls,
        "events_per_s": spread([report.events_per_s for report in reports], 0),
    }


def must_be_equal(reports: Sequence[ReplayReport]) -> None:
    """Figures of a replay that leads elsewhere mean nothing. Raises Rejected("replay_differs")."""
    for report in reports:
        if not report.equal:
            raise Rejected(
                "replay_differs", run_id=report.run_id, digest=report.digest, recorded_digest=report.recorded_digest
            )
