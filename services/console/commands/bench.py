"""`htdag bench`: measure a throw-away instance on this machine."""

import asyncio
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from contracts.errors import OK, Rejected
from services.console.options import DEFAULTS, Common
from services.runtime import event_loop

app = App(name="bench", help_format="plaintext")

Workload = Literal["W1", "W2", "W3", "replay", "llm", "policy"]
ALL: tuple[Workload, ...] = ("W1", "W2", "W3", "replay", "llm", "policy")
SERVICE_OF: dict[Workload, str] = {"llm": "llm-worker", "policy": "policy-gateway"}


@app.default
def bench(
    *workloads: Workload,
    sync: Literal["always", "1s"] = "always",
    remote: Annotated[bool, Parameter(negative="")] = False,
    n: int | None = None,
    reps: int = 5,
    common: Common = DEFAULTS,
) -> int:
    """Measure a throw-away instance: started for it, stopped and removed after it.

    W1      tasks per second: one root, 1000 independent tasks, one join
    W2      milliseconds per task: 200 tasks in sequence
    W3      tasks per second: 200 runs of ten tasks at the same time
    replay  events per second: the log of a run of 20,000 tasks
    llm     from a stored request to the journaled answer of a mock model
    policy  decisions and tool calls of the policy-gateway, from the request to the reply

    For example:
        htdag bench W1 W2 W3 --json
        htdag bench llm --sync 1s

    Parameters
    ----------
    workloads
        What to measure; everything when nothing is named.
    sync
        The broker's durability: always (fsync before each acknowledgement) or 1s.
    remote
        Run the bodies of the tasks in another process, over NATS.
    n
        Size: tasks (W1, W2, replay), runs (W3), requests (llm), decisions (policy).
    reps
        Repetitions; the figures are their median, minimum and maximum.
    """
    if reps < 1 or (n is not None and n < 1):
        raise Rejected("bad_request", "--reps and --n count from 1")
    output = common.output
    # The client shares the machine with what it measures: it runs on the same loop as the services.
    with asyncio.Runner(loop_factory=event_loop.factory()) as runner:
        for name in workloads or ALL:
            output.note(f"measuring {name}")
            figures = runner.run(_measure(name, sync=sync, remote=remote, n=n, reps=reps))
            output.value({"system": "htdag", "workload": name, "sync": sync, "remote": remote, "reps": reps, **figures})
    return OK


async def _measure(
    name: Workload, *, sync: Literal["always", "1s"], remote: bool, n: int | None, reps: int
) -> dict[str, Any]:
    from contextlib import AsyncExitStack

    from services.console.bench import llm, policy, runs
    from services.console.bench.stage import remote_bodies, stage

    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(stage([SERVICE_OF.get(name, "executor")], sync))
        idle = place.memory_mb()
        if name == "llm":
            calls = llm.LlmBench(place.bus)
            await calls.start()
            figures = await llm.llm(calls, n=n, reps=reps)
        elif name == "policy":
            figures = await policy.policy(policy.PolicyBench(place.bus), n=n, reps=reps)
        else:
            if remote:
                await stack.enter_async_context(remote_bodies(place.fleet.url, place.bus))
            bench = runs.RunBench(place.bus)
            await bench.start()
            if name == "replay":
                figures = await runs.replay(bench, n=n, reps=reps)
            else:
                workload = {"W1": runs.w1, "W2": runs.w2, "W3": runs.w3}[name]
                figures = await workload(bench, n=n, reps=reps, remote=remote)
        return {
            **figures,
            "started_in_s": place.started_in_s,
            "memory_idle_mb": idle,
            "memory_after_mb": place.memory_mb(),
        }
