"""`htdag runs`: what there is to know and to do about runs."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from contracts.errors import FAILED, OK, Rejected
from services.console.big_values import whole
from services.console.board_text import error_text, shorten, tree_text
from services.console.connection import Console, connected
from services.console.options import DEFAULTS, Common
from services.console.output import columns, duration, money, plain
from services.console.taint_text import taint_lines
from services.runtime.clock import SystemClock, rfc3339

app = App(
    name="runs",
    help="Look at runs; cancel, resume, replay and audit them.\n\nFor example:\n    htdag runs list",
    help_format="plaintext",
)


@app.command(name="list")
async def list_(*, limit: int = 20, after: str | None = None, common: Common = DEFAULTS) -> None:
    """List runs, newest first.

    For example:
        htdag runs list --limit 5

    Parameters
    ----------
    limit
        How many at most.
    after
        Only those behind this run id: the next page.
    """
    output = common.output
    page = {"limit": limit, **({"after": after} if after else {})}
    async with connected(common) as console:
        runs = plain(await console.call("executor.run.list", page))
    rows = [
        (
            run["run_id"],
            output.state(run["status"]),
            f"{run['completed']}/{run['total']}",
            run["failed"],
            run["tokens"],
            money(run["cost_usd_micros"], unknown=run["cost_unknown"]),
            run["last_at"],
            shorten(run["goal"], 50),
        )
        for run in runs
    ]
    output.value(runs, lambda _: columns(("RUN", "STATE", "DONE", "FAILED", "TOKENS", "COST", "LAST", "GOAL"), rows))


@app.command
async def show(run_id: str, /, *, common: Common = DEFAULTS) -> None:
    """Show a run as it stands: its tasks, what it waits for, what it cost.

    For example:
        htdag runs show auth-build-1

    Parameters
    ----------
    run_id
        Id of the run; `htdag runs list` shows them.
    """
    output = common.output
    async with connected(common) as console:
        view = plain(await console.call("executor.run.get", {"run_id": run_id}))
        if output.json:
            output.value(view)
            return
        await _print_tree(console, run_id, common)
    for wait in view["waits"]:
        output.line(f"waits  {wait['task_id']}  {wait['kind']}  until {rfc3339(wait['deadline_at_ms'])}")
    for line in taint_lines(view["tasks"]):
        output.line(line)
    if view["digest"]:
        output.line(f"digest {view['digest']}")


@app.command
async def graph(
    run_id: str, /, *, tree: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULTS
) -> None:
    """Show the state of every task of a run, by id.

    For example:
        htdag runs graph auth-build-1 --json

    Parameters
    ----------
    run_id
        The run.
    tree
        Draw it as a tree with times and costs.
    """
    async with connected(common) as console:
        if tree and not common.json:
            await _print_tree(console, run_id, common)
            return
        states = await console.call("executor.run.graph", {"run_id": run_id})
    rows = [(task, common.output.state(state)) for task, state in states.items()]
    common.output.value(states, lambda _: columns(("TASK", "STATE"), rows))


@app.command
async def watch(run_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Watch a run until it ends, from its first event on. Exit code 1 when it
    fails.

    For example:
        htdag runs watch auth-build-1

    Parameters
    ----------
    run_id
        Id of the run; `htdag runs list` shows them.
    """
    from services.console.follow_run import choose, exit_code, follow_run

    clock = SystemClock()
    async with connected(common) as console:
        await console.call("executor.run.get", {"run_id": run_id})
        show_ = choose(common.output, clock=clock, single_document=False)
        board = await follow_run(console, run_id, show_, clock)
        if common.json:
            common.output.value(await console.call("executor.run.result", {"run_id": run_id}))
    return exit_code(board)


@app.command
async def cancel(
    run_id: str, /, *, task: str | None = None, reason: str = "cancelled by the user", common: Common = DEFAULTS
) -> None:
    """Stop a run, or one task of it and all that waits for it.

    For example:
        htdag runs cancel auth-build-1 --reason "not needed"

    Parameters
    ----------
    run_id
        The run.
    task
        Only this task.
    reason
        Why; it stands in the log.
    """
    body = {"run_id": run_id, "reason": reason, **({"task_id": task} if task else {})}
    async with connected(common) as console:
        await _summary(common, await console.call("executor.run.cancel", body))


@app.command
async def resume(run_id: str, /, *, common: Common = DEFAULTS) -> None:
    """Try again what failed, was blocked or was cancelled.

    Tasks that are completed stay so, with their results. A task that failed begins
    a new attempt, and its model calls are new ones: they are paid.

    For example:
        htdag runs resume auth-build-1

    Parameters
    ----------
    run_id
        Id of the run; `htdag runs list` shows them.
    """
    async with connected(common) as console:
        await _summary(common, await console.call("executor.run.resume", {"run_id": run_id}))


@app.command
async def result(run_id: str, /, *, task: str | None = None, common: Common = DEFAULTS) -> int:
    """Print what a run produced: the result of every completed task. Exit code 1
    when the run failed.

    For example:
        htdag runs result auth-build-1 --task spec

    Parameters
    ----------
    run_id
        The run.
    task
        Only this task's result.
    """
    output = common.output
    async with connected(common) as console:
        outcome = plain(await console.call("executor.run.result", {"run_id": run_id}))
        outcome["results"] = await whole(console.bus, outcome["results"])
    if task is not None:
        if task not in outcome["results"]:
            raise Rejected("not_completed", f"task {task} has no result in run {run_id}", run_id=run_id, task_id=task)
        output.value(outcome["results"][task], _result_text)
        return OK
    output.value(outcome, _outcome_text)
    return FAILED if outcome["status"] == "failed" else OK


@app.command
async def replay(run_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Compute a run's state again from its stored events and compare. It calls no
    model and runs no task. Exit code 1 when the states differ.

    For example:
        htdag runs replay auth-build-1

    Parameters
    ----------
    run_id
        Id of the run; `htdag runs list` shows them.
    """
    async with connected(common) as console:
        report = plain(await console.call("executor.run.replay", {"run_id": run_id}, timeout_s=max(common.wait, 60)))
    common.output.value(report, replay_text)
    return OK if report["equal"] and report["order_ok"] else FAILED


def replay_text(report: dict[str, Any]) -> str:
    """What a replay found, in one line."""
    verdict = "state digest equal" if report["equal"] else "state digest DIFFERS"
    order = "" if report["order_ok"] else ", the order of the log is broken"
    return f"replayed {report['events']} events, {report['llm_calls']} LLM calls, {verdict}{order}"


@app.command
async def audit(run_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Count what was paid or done twice, and what still waits. Exit code 1 when
    something was done twice.

    For example:
        htdag runs audit auth-build-1

    Parameters
    ----------
    run_id
        Id of the run; `htdag runs list` shows them.
    """
    async with connected(common) as console:
        proof = plain(await console.call("executor.run.audit", {"run_id": run_id}))
    text = (
        f"llm calls paid {proof['llm_calls_paid']}  duplicates {proof['duplicates']}  "
        f"tasks completed twice {proof['tasks_completed_twice']}  "
        f"tool calls {proof['tool_calls']}  tools run twice {proof['tools_run_twice']}  "
        f"open waits {proof['open_waits']}"
    )
    common.output.value(proof, text)
    return FAILED if proof["duplicates"] or proof["tasks_completed_twice"] or proof["tools_run_twice"] else OK


@app.command
async def waits(run_id: str | None = None, /, *, common: Common = DEFAULTS) -> None:
    """List everything that waits, with its deadline: of one run, or of all.

    For example:
        htdag runs waits

    Parameters
    ----------
    run_id
        Only this run.
    """
    async with connected(common) as console:
        open_waits = plain(await console.call("executor.run.waits", {"run_id": run_id} if run_id else {}))
    common.output.value(open_waits, lambda _: waits_text(open_waits))


def waits_text(open_waits: list[dict[str, Any]]) -> str:
    """Open waits as a table; the soonest deadline first."""
    now_ms = SystemClock().now_ms()
    rows = [
        (wait["run_id"], wait["task_id"], wait["kind"], rfc3339(wait["deadline_at_ms"]), _left(wait, now_ms))
        for wait in sorted(open_waits, key=lambda wait: int(wait["deadline_at_ms"]))
    ]
    return columns(("RUN", "TASK", "KIND", "DEADLINE", "LEFT"), rows) if rows else "nothing waits"


def _left(wait: dict[str, Any], now_ms: int) -> str:
    left_s = (wait["deadline_at_ms"] - now_ms) / 1000
    return duration(left_s) if left_s >= 0 else f"overdue {duration(-left_s)}"


async def _print_tree(console: Console, run_id: str, common: Common) -> None:
    from services.console.follow_run import load_board

    board = await load_board(console, run_id)
    output = common.output
    output.line(tree_text(board, SystemClock().now_ms(), output.paint))


async def _summary(common: Common, summary: Any) -> None:
    run = plain(summary)
    text = f"run {run['run_id']}  {run['status']}  completed {run['completed']}/{run['total']}  failed {run['failed']}"
    common.output.value(run, text)


def _outcome_text(outcome: dict[str, Any]) -> str:
    head = (
        f"run {outcome['run_id']}  {outcome['status']}  completed {outcome['completed']}  failed {outcome['failed']}  "
        f"mutations_proposed {outcome.get('mutations_proposed', [])}  mutations_applied {outcome['mutations_applied']}"
    )
    error = [error_text(outcome["error"])] if outcome.get("error") else []
    bodies = [f"\n== {task}\n{_result_text(value)}" for task, value in outcome["results"].items()]
    return "\n".join([head, *error, *bodies])


def _result_text(value: Any) -> str:
    import msgspec

    if isinstance(value, dict) and isinstance(value.get("output"), str):
        return str(value["output"])
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
