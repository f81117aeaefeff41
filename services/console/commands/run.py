"""`htdag run`: a goal, or the tasks of a file, carried out and watched."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from cyclopts import App, Parameter

from contracts.errors import OK, Rejected
from contracts.limits import COMPLEXITY_MAX, GOAL_CHARS_MAX
from services.console import not_yet, task_file
from services.console.connection import Console, connected
from services.console.home import Home
from services.console.options import DEFAULTS, Common, Wish
from services.console.output import Output, micros_of, plain
from services.console.plan_text import plan_text
from services.console.workspace import Profile, workspace_of

app = App(name="run", help_format="plaintext")
PLAN_S = 120.0
"""Decomposing may ask a model at every level: it has its own patience."""


@Parameter(name="*")
@dataclass(frozen=True)
class RunFlags:
    """How the run is carried out."""

    run_id: str | None = None
    """Id of the run (one is made up when not given); the same id again attaches to the run that is there."""
    epic: str | None = None
    """Epic that the run belongs to."""
    strategy: str | None = None
    """Strategy (name or name@version) instead of the one that matches the goal, or in a file its agents' tasks; none
    means none at all."""
    complexity: float | None = None
    """Estimated complexity of the goal, 0 to 100 (10 when not given); below 5 it stays one task."""
    model: str | None = None
    """Model for every call whose task names none itself (llm nodes of a file do), instead of the strategy's choice."""
    parallel: Annotated[int | None, Parameter(show_default=False)] = None
    """How many tasks may run at once; 64 when not given."""
    fail_fast: Annotated[bool, Parameter(negative="")] = False
    """End the run at the first failed task."""
    timeout: float | None = None
    """Seconds the whole run may take; 3600 when not given."""
    llm_timeout: float | None = None
    """Seconds one model call may take where its task does not say; 30 when not given."""
    max_tokens: int | None = None
    """Longest answer of a model, in tokens, where its task does not say."""
    temperature: float | None = None
    """Temperature of every model call whose task does not say."""
    workspace: str | None = None
    """Directory (or name of a workspace) that agents get tools for; without one they have none."""
    profile: Profile | None = None
    """What the directory is made with, seed (mix, cargo, npm, …) or python; its files tell when not given."""
    stream: Wish = None
    """Stream the answers; on by default when the run is watched."""
    budget_usd: Decimal | None = None
    """Dollars that all its model calls may cost together."""
    budget_tokens: int | None = None
    """Tokens that they may use."""
    allow_unpriced: Annotated[bool, Parameter(negative="")] = False
    """Also ask models whose price nobody knows, although money is limited: only their tokens are counted."""
    evolve: Annotated[bool, Parameter(negative="")] = False
    """Has no effect yet: evolution is a later part of htdag."""

    def options(self, *, watched: bool, home: Home) -> dict[str, Any]:
        """The fields of RunOptions that were given."""
        seconds = {"timeout_ms": self.timeout, "llm_timeout_ms": self.llm_timeout}
        wishes: dict[str, Any] = {
            "stream": watched if self.stream is None else self.stream,
            "parallel": self.parallel,
            "fail_fast": self.fail_fast or None,
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "evolve": self.evolve or None,
            "workspace": self._workspace(home),
            "budget_usd_micros": None if self.budget_usd is None else micros_of(self.budget_usd),
            "budget_tokens": self.budget_tokens,
            "allow_unpriced": self.allow_unpriced or None,
            **{name: None if value is None else int(value * 1000) for name, value in seconds.items()},
        }
        return {name: value for name, value in wishes.items() if value is not None}

    def _workspace(self, home: Home) -> str | None:
        if self.workspace is None:
            if self.profile is not None:
                raise Rejected("bad_request", "--profile is for --workspace DIR", hint="say which directory")
            return None
        return workspace_of(self.workspace, home, self.profile)


@app.default
async def run(
    what: str,
    /,
    *,
    plan_only: Annotated[bool, Parameter(negative="")] = False,
    follow: Wish = None,
    flags: RunFlags = RunFlags(),
    common: Common = DEFAULTS,
) -> int:
    """Carry out a goal, or the tasks of a JSON file (- is standard input), and
    watch it to its end.

    On a terminal a live tree shows tasks, tokens and cost; elsewhere there is one
    line per event. With --json the result is one document; with --json --follow
    there is one document per event. Exit code 1 when the run fails,
    6 when a budget was used up.

    Of the tasks of a file that are ready, the one with the smallest priority goes
    first (5 when not given); of strategies, the largest priority wins.

    For example:
        htdag run "Build user authentication with JWT" --run-id auth-build-1
        htdag run tasks.json --parallel 4 --no-follow --json
        htdag run "Add a health check" --workspace . --profile python

    Parameters
    ----------
    what
        The goal in a sentence, or a file that ends in .json.
    plan_only
        Only decompose the goal and print the tasks.
    follow
        Watch it to its end (--no-follow returns as soon as it is accepted).
    """
    output = common.output
    watched = follow is not False and not (output.json and follow is None)
    options = flags.options(watched=watched, home=common.place)
    async with connected(common) as console:
        if task_file.looks_like_file(what):
            accepted = await _start_file(console, what, flags, output, options, plan_only=plan_only)
        else:
            accepted = await _submit_goal(console, what, flags, output, options, plan_only=plan_only)
        if plan_only or follow is False:
            output.value(accepted, lambda value: plan_text(plain(value)))
            return OK
        return await _watch(console, plain(accepted)["run_id"], output, follow=bool(follow))


async def _submit_goal(
    console: Console, goal: str, flags: RunFlags, output: Output, options: dict[str, Any], *, plan_only: bool
) -> Any:
    if flags.complexity is not None and not 0 <= flags.complexity <= COMPLEXITY_MAX:
        text = f"complexity must be 0 to {COMPLEXITY_MAX:g}"
        # As text: JSON has no NaN.
        raise Rejected("bad_request", text, field="complexity", max=COMPLEXITY_MAX, requested=str(flags.complexity))
    if len(goal) > GOAL_CHARS_MAX:
        raise Rejected("too_large", f"the goal has {len(goal)} characters", max=GOAL_CHARS_MAX, hint="say it shorter")
    wishes = {
        "goal": goal,
        "run_id": flags.run_id,
        "epic_id": flags.epic,
        "strategy": flags.strategy,
        "complexity": flags.complexity,
        "plan_only": plan_only,
    }
    body: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
    body["options"] = options
    for note in not_yet.notes(body["options"]):
        output.note(f"note: {note}")
    verb = "planner.goal.plan" if plan_only else "planner.goal.submit"
    return await console.call(verb, body, timeout_s=max(console.timeout_s, PLAN_S))


async def _start_file(
    console: Console, path: str, flags: RunFlags, output: Output, options: dict[str, Any], *, plan_only: bool
) -> Any:
    if plan_only:
        raise Rejected("bad_request", "--plan-only is for goals; a file is a plan already", hint="leave it out")
    plan, remarks = task_file.read_plan(path)
    wishes = {"run_id": flags.run_id, "epic_id": flags.epic, "strategy": flags.strategy}
    body = {**plan, **{name: value for name, value in wishes.items() if value is not None}}
    given = plan.get("options")
    body["options"] = {**(given if isinstance(given, dict) else {}), **options}
    for remark in remarks + not_yet.notes(body["options"]):
        output.note(f"note: {remark}")
    return await console.call("executor.run.start", body, timeout_s=max(console.timeout_s, 60.0))


async def _watch(console: Console, run_id: str, output: Output, *, follow: bool) -> int:
    from services.console.follow_run import choose, exit_code, follow_run
    from services.runtime.clock import SystemClock

    clock = SystemClock()
    show = choose(output, clock=clock, single_document=not follow)
    try:
        board = await follow_run(console, run_id, show, clock)
    except BaseException:
        output.note(f"the run goes on by itself: htdag runs watch {run_id}, or htdag runs cancel {run_id}")
        raise
    if output.json:
        result = plain(await console.call("executor.run.result", {"run_id": run_id}))
        bill = {
            "tokens": board.tokens,
            "cost_usd_micros": board.cost_usd_micros,
            "cost_unknown": board.cost_unknown,
            "llm_calls": board.llm_calls,
            "tool_calls": board.tool_calls,
            "elapsed_s": board.elapsed_s(clock.now_ms()),
        }
        output.value({**result, **bill})
    return exit_code(board)
