"""The run aggregate alone, without a broker: what a task costs in Python, and how fast a log is folded."""

import argparse
import cProfile
import gc
import json
import pstats
import statistics
import time
from collections.abc import Callable
from typing import Any

from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.run import RunCommand, RunEvent, RunOptions, StartRun, TakeResult
from contracts.task import NoopNode, TaskSpec
from services.executor.run.decider import RUN
from services.executor.run.effects import RunNoop
from services.executor.run.state import Run, digest
from services.runtime.app import GARBAGE_THRESHOLDS
from services.runtime.decider import fold

NOW_MS = 1_790_000_000_000


def fan(size: int) -> list[TaskSpec]:
    """One root, `size` tasks behind it, one that joins them."""
    body = NoopNode()
    middle = [TaskSpec(id=f"t{n}", depends_on=["root"], node=body) for n in range(size)]
    return [TaskSpec(id="root", node=body), *middle, TaskSpec(id="join", depends_on=[t.id for t in middle], node=body)]


def chain(size: int) -> list[TaskSpec]:
    """One task behind the other."""
    return [TaskSpec(id=f"t{n}", depends_on=[f"t{n - 1}"] if n else [], node=NoopNode()) for n in range(size)]


def live(tasks: list[TaskSpec], parallel: int) -> tuple[Run, list[list[RunEvent]]]:
    """Carry a run of noops out as the host does: drain, decide, advance, evolve, react; the commits come back."""
    run = RUN.initial("bench")
    mailbox: list[RunCommand] = [StartRun("bench", tasks=tasks, options=RunOptions(parallel=parallel))]
    commits: list[list[RunEvent]] = []
    while mailbox:
        events: list[RunEvent] = []
        for command in mailbox:
            for event in RUN.decide(command, run, NOW_MS):
                RUN.evolve(run, event)
                events.append(event)
        while follows := RUN.advance(run, NOW_MS):
            for event in follows:
                RUN.evolve(run, event)
            events.extend(follows)
        RUN.deadline_at_ms(run)
        commits.append(events)
        mailbox = [
            TakeResult(effect.task_id, effect.attempt, "body", effect.result)
            for effect in RUN.react(run, events)
            if isinstance(effect, RunNoop)
        ]
    return run, commits


def timed(work: Callable[[], Any], rounds: int) -> float:
    """Median seconds of processor time of `rounds` runs: others on the same machine do not count."""
    spent = []
    for _ in range(rounds):
        gc.collect()
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return statistics.median(spent)


def measure(name: str, tasks: list[TaskSpec], parallel: int, rounds: int) -> None:
    """Print what one graph costs, live and folded."""
    run, commits = live(tasks, parallel)
    if run.status != "completed":
        raise SystemExit(f"{name} ended {run.status}: {run.error}")
    codec = CommitCodec[RunEvent](RunEvent)
    stored = [codec.encode(Commit("2026-11-20T00:00:00Z", "executor", "c", "r", events)) for events in commits]
    events = [event for commit in commits for event in commit]

    def replay() -> Run:
        state = RUN.initial("bench")
        for data in stored:
            fold(RUN, state, codec.decode(data).events)
        return state

    decided_s = timed(lambda: live(tasks, parallel), rounds)
    folded_s = timed(lambda: fold(RUN, RUN.initial("bench"), events), rounds)
    replayed_s = timed(replay, rounds)
    report = {
        "workload": name,
        "tasks": len(tasks),
        "events": len(events),
        "commits": len(commits),
        "decide_us_per_task": round(decided_s / len(tasks) * 1e6, 2),
        "evolve_events_per_s": round(len(events) / folded_s),
        "replay_events_per_s": round(len(events) / replayed_s),
        "digest_ms": round(timed(lambda: digest(run), rounds) * 1e3, 2),
        "bytes": sum(map(len, stored)),
    }
    print(json.dumps(report), flush=True)


def main(arguments: list[str]) -> int:
    """Measure W1 in three sizes and a chain."""
    options = argparse.ArgumentParser(prog="scripts/bench_run_decider", add_help=False)
    options.add_argument("--tasks", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--profile", action="store_true")
    given = options.parse_args(arguments)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    if given.profile:
        profile = cProfile.Profile()
        profile.runcall(live, fan(given.tasks), 1000)
        pstats.Stats(profile).sort_stats("tottime").print_stats(18)
        return 0
    measure("fan", fan(given.tasks), 10_000, given.rounds)
    measure("fan, 64 at a time", fan(given.tasks), 64, given.rounds)
    measure("fan of 20,000", fan(20_000), 1_000, 3)
    measure("chain of 5,000", chain(5_000), 64, 3)
    return 0
