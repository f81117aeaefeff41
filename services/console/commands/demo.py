"""`htdag demo`: the main job in one command, on an instance that is thrown away."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from contracts.errors import FAILED, OK, Rejected
from services.console.commands.runs import replay_text
from services.console.connection import Console, connected
from services.console.home import Home
from services.console.interruption import unwind_when_ended
from services.console.options import Common
from services.console.output import Output, duration, plain
from services.console.plan_text import plan_text
from services.console.processes import ended, identify

app = App(name="demo", help_format="plaintext")
GOAL: Final = "Build user authentication with JWT"
RUN_S: Final = 150.0
"""The demo is to end within three minutes, also when a model is slow."""


@app.default
async def demo(
    *,
    goal: str = GOAL,
    model: str | None = None,
    max_tokens: int = 24,
    keep: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Start a throw-away instance on free ports, carry out a goal on it, replay
    the run, and stop everything.

    Nothing of an instance that runs already is touched: it has its own home,
    broker and ports.

    For example:
        htdag demo
        htdag demo --goal "Write a haiku about event sourcing" --max-tokens 80

    Parameters
    ----------
    goal
        What to reach.
    model
        Model that answers for the ones that strategies name; else the small local one does.
    max_tokens
        Longest answer of a model.
    keep
        Leave the home behind and say where it is.
    json
        Print JSON documents.
    """
    output = Output(json=json)
    folder = Path(tempfile.mkdtemp(prefix="htdag-demo-"))
    unwind_when_ended()
    try:
        return await _in(folder, goal, model, max_tokens, output)
    finally:
        if keep:
            output.note(f"kept: htdag up --home {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


async def _in(folder: Path, goal: str, model: str | None, max_tokens: int, output: Output) -> int:
    from services.console.supervision import foreground
    from services.console.supervision.plan import UpPlan

    began_s = time.monotonic()
    plan = UpPlan(port=0, model=model, embedded=True, limits_lifted=True)
    common = Common(home=folder, json=output.json)
    output.note(f"1/4 starting a throw-away instance in {folder}")
    async with foreground.instance(Home(folder), plan, output) as fleet:
        if not await foreground.wait_ready(fleet):
            raise foreground.not_ready(fleet)
        output.note(f"    broker, {', '.join(plan.services)} ready after {duration(time.monotonic() - began_s)}")
        async with connected(common) as console:
            good = await _goal(console, goal, max_tokens, output)
        processes = fleet.record(identify(os.getpid()), "foreground").processes[1:]
        output.note("4/4 stopping")
    left = await ended(processes, 5.0)
    if left:
        raise Rejected("internal", "processes were left running", pids=[process.pid for process in left])
    output.note(f"    nothing is left running; the whole took {duration(time.monotonic() - began_s)}")
    return OK if good else FAILED


async def _goal(console: Console, goal: str, max_tokens: int, output: Output) -> bool:
    """Carry out the goal and replay it; whether both went well."""
    from services.console.follow_run import choose, follow_run
    from services.runtime.clock import SystemClock

    output.note(f"2/4 the goal: {goal}")
    options = {"stream": True, "max_tokens": max_tokens, "llm_timeout_ms": 60_000, "timeout_ms": int(RUN_S * 1000)}
    plan = plain(await console.call("planner.goal.submit", {"goal": goal, "options": options}, timeout_s=60.0))
    output.value(plan, plan_text)
    clock = SystemClock()
    show = choose(output, clock=clock, single_document=True)
    board = await follow_run(console, plan["run_id"], show, clock)
    output.note("3/4 the replay: folding the log again, calling nobody")
    report = plain(await console.call("executor.run.replay", {"run_id": plan["run_id"]}, timeout_s=30.0))
    if output.json:
        output.value(plain(await console.call("executor.run.result", {"run_id": plan["run_id"]})))
    output.value(report, replay_text)
    return board.status == "completed" and bool(report["equal"]) and report["order_ok"] is True
