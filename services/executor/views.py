"""A run's state as queries show it. Pure."""

from collections.abc import Iterator

from contracts.errors import Rejected
from contracts.run import RunSummary, RunView, TaskView, Wait
from contracts.run_proofs import RunResult
from contracts.taint import Reading
from contracts.task import RunState
from services.executor.readings import shown
from services.executor.run.attempts import expected_stage
from services.executor.run.decider import GOAL_SHOWN_CHARS
from services.executor.run.state import UNTAINTED, Run, TaskRecord, counts, digest


def status_of(run: Run) -> RunState:
    """The run's state; raises run_not_found when nothing ever began it."""
    if run.status is None:
        raise Rejected("run_not_found", f"there is no run {run.run_id}", run_id=run.run_id)
    return run.status


def summary_of(run: Run, last_at: str = "") -> RunSummary:
    """A run in a list."""
    return RunSummary(
        run_id=run.run_id,
        status=status_of(run),
        goal=run.goal[:GOAL_SHOWN_CHARS],
        epic_id=run.epic_id,
        total=len(run.tasks),
        completed=run.completed_count,
        failed=run.failed_count,
        tokens=run.tokens,
        cost_usd_micros=run.cost_usd_micros,
        cost_unknown=run.cost_unknown,
        last_at=last_at,
    )


def view_of(run: Run, last_seq: int) -> RunView:
    """A run with its tasks and waits."""
    return RunView(
        run_id=run.run_id,
        status=status_of(run),
        goal=run.goal,
        epic_id=run.epic_id,
        strategy=run.strategy,
        options=run.options,
        deadline_at_ms=run.deadline_at_ms,
        counts=counts(run),
        tasks=[task_view(task) for task in run.tasks.values()],
        waits=list(waits_of(run)),
        tokens=run.tokens,
        cost_usd_micros=run.cost_usd_micros,
        cost_unknown=run.cost_unknown,
        error=run.error,
        digest=run.recorded_digest or digest(run),
        last_seq=last_seq,
    )


def task_view(task: TaskRecord) -> TaskView:
    """One task."""
    spec, taint = task.spec, task.taint or UNTAINTED
    return TaskView(
        id=spec.id,
        status=task.status,
        attempt=task.attempt,
        title=spec.title or spec.description[:GOAL_SHOWN_CHARS],
        role=spec.role,
        parent=spec.parent,
        depends_on=spec.depends_on,
        sparc_phase=spec.sparc_phase,
        estimated_complexity=spec.estimated_complexity,
        blocked_by=task.blocked_by,
        error=task.error,
        reworks=task.reworks,
        tokens=task.tokens,
        cost_usd_micros=task.cost_usd_micros,
        cost_unknown=task.cost_unknown,
        models=list(task.models),
        tool_calls=task.tool_calls,
        approval_id=task.gate.gate_id if task.status == "waiting_approval" and task.gate is not None else None,
        read=[shown(Reading(tool, what)) for tool, what in taint.read],
        read_more=taint.read_more,
        tainted_by=[*taint.readers],
        tainted_more=taint.readers_more,
    )


def waits_of(run: Run) -> Iterator[Wait]:
    """Everything a run waits for, with its deadline: LLM answers, tools, Lua stages, bodies, children, retries."""
    if run.status != "running":
        return
    for call in run.calls.values():
        yield Wait(run.run_id, call.task.spec.id, "llm", call.deadline_at_ms)
    for task in run.tasks.values():
        if task.status == "in_progress":
            if task.is_group:
                yield Wait(run.run_id, task.spec.id, "children", task.deadline_at_ms)
            elif task.work is not None and task.work.tools:
                for asked in task.work.tools.values():
                    yield Wait(run.run_id, task.spec.id, f"tool:{asked.tool}", asked.deadline_at_ms)
            elif task.work is None or not task.work.calls:
                yield Wait(run.run_id, task.spec.id, _kind(task), task.deadline_at_ms)
        elif task.gate is not None:
            yield Wait(run.run_id, task.spec.id, "approval", task.gate.expires_at_ms)
        elif task.status == "pending" and task.due_at_ms:
            yield Wait(run.run_id, task.spec.id, "retry", task.due_at_ms)


def _kind(task: TaskRecord) -> str:
    node_type = str(task.spec.node.__struct_config__.tag)
    if node_type != "agent":
        return node_type
    stage = expected_stage(task)
    return f"lua:{stage.partition('-')[0]}" if stage else "agent"


def result_of_run(run: Run) -> RunResult:
    """What a run produced so far."""
    return RunResult(
        run_id=run.run_id,
        status=status_of(run),
        completed=run.completed_count,
        failed=run.failed_count,
        results={task_id: task.result for task_id, task in run.tasks.items() if task.status == "completed"},
        mutations_proposed=[],
        mutations_applied=[],
        error=run.error,
    )


def graph_of(run: Run) -> dict[str, str]:
    """The state of every task, by id."""
    status_of(run)
    return {task_id: task.status for task_id, task in run.tasks.items()}
