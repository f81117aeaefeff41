"""`htdag tasks`: enqueue tasks and look at them."""

from typing import Any

from cyclopts import App

from services.console import not_yet, task_file
from services.console.big_values import whole
from services.console.connection import connected
from services.console.options import DEFAULTS, Common
from services.console.output import columns, plain

app = App(
    name="tasks",
    help="Enqueue tasks and look at them.\n\nFor example:\n    htdag tasks graph --run auth-build-1",
    help_format="plaintext",
)


@app.command
async def enqueue(
    file: str, /, *, epic: str | None = None, strategy: str | None = None, common: Common = DEFAULTS
) -> None:
    """Enqueue the tasks of a JSON file (one, a list, or {"tasks": […]}; - is
    standard input): all or none.

    For example:
        htdag tasks enqueue feature.json --epic auth
        echo '{"id":"a","description":"Draft"}' | htdag tasks enqueue -

    Parameters
    ----------
    file
        The file.
    epic
        The epic they belong to; `default` when none is named.
    strategy
        Strategy instead of the one that matches.
    """
    plan, remarks = task_file.read_plan(file)
    wishes = {"epic_id": epic or plan.get("epic_id"), "strategy": strategy or plan.get("strategy")}
    tasks = plan["tasks"]
    asked: dict[str, Any] = {"task": tasks[0]} if isinstance(tasks, task_file.OneTask) else {"tasks": tasks}
    body = {**asked, **{name: value for name, value in wishes.items() if value is not None}}
    if isinstance(plan.get("options"), dict):
        body["options"] = plan["options"]
    for remark in remarks + not_yet.notes(body.get("options")):
        common.output.note(f"note: {remark}")
    async with connected(common) as console:
        ids = await console.call("planner.task.enqueue", body, timeout_s=max(common.wait, 60.0))
    common.output.value(ids, ids if isinstance(ids, str) else "\n".join(ids))


@app.command
async def status(
    task_id: str, /, *, run: str | None = None, epic: str | None = None, common: Common = DEFAULTS
) -> None:
    """Print the state of a task.

    For example:
        htdag tasks status spec --run auth-build-1

    Parameters
    ----------
    task_id
        The task.
    run
        The run it is in; without one, the epic's run.
    epic
        The epic; `default` when neither is named.
    """
    async with connected(common) as console:
        state = await console.call("planner.task.status", _ref(task_id, run, epic))
    common.output.value(state, common.output.state(str(state)))


@app.command
async def result(
    task_id: str, /, *, run: str | None = None, epic: str | None = None, common: Common = DEFAULTS
) -> None:
    """Print the result of a completed task; exit code 5 while it has none, 3 when
    there is no such task.

    For example:
        htdag tasks result spec --run auth-build-1 --json

    Parameters
    ----------
    task_id
        The task.
    run
        The run it is in; without one, the epic's run.
    epic
        The epic; `default` when neither is named.
    """
    async with connected(common) as console:
        value = await whole(console.bus, await console.call("planner.task.result", _ref(task_id, run, epic)))
    text = value if isinstance(value, str) else value.get("output") if isinstance(value, dict) else None
    common.output.value(value, text if isinstance(text, str) else None)


@app.command
async def graph(*, run: str | None = None, epic: str | None = None, common: Common = DEFAULTS) -> None:
    """Show the state of every task of a run, or of an epic's run, by id.

    For example:
        htdag tasks graph --run auth-build-1 --json

    Parameters
    ----------
    run
        The run.
    epic
        The epic; `default` when neither is named.
    """
    where = {"run_id": run, "epic_id": epic}
    async with connected(common) as console:
        states = plain(
            await console.call("planner.task.graph", {name: value for name, value in where.items() if value})
        )
    rows = [(task, common.output.state(state)) for task, state in states.items()]
    common.output.value(states, lambda _: columns(("TASK", "STATE"), rows))


def _ref(task_id: str, run: str | None, epic: str | None) -> dict[str, Any]:
    wishes = {"task_id": task_id, "run_id": run, "epic_id": epic}
    return {name: value for name, value in wishes.items() if value is not None}
