"""Taking facts in: one function per event type. Never fails on a log that was judged, never judges."""

from collections.abc import Callable, Mapping
from heapq import heappush
from typing import Any, Final

from contracts.run import (
    AgentsSpawned,
    LlmAnswered,
    LlmAwaited,
    LlmRequested,
    LlmSettled,
    Orchestrated,
    RunCancelRequested,
    RunCreated,
    RunEnded,
    RunEvent,
    RunResumed,
    TaskBlocked,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskJudged,
    TaskReset,
    TaskRetryScheduled,
    TaskReworked,
    TasksAdded,
    TaskStarted,
)
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.strategy import NO_STRATEGY
from contracts.task import TASK_STATES_FINAL, TaskState
from services.executor.run import evolve_calls, taint
from services.executor.run.failures import opens_gate
from services.executor.run.state import (
    Gate,
    Run,
    TaskRecord,
    Work,
    is_group,
    make_ready,
    may_start,
)


def evolve(run: Run, event: RunEvent) -> Run:
    """Take one fact in. The same object comes back, changed."""
    TAKERS[type(event)](run, event)
    return run


def _created(run: Run, event: RunCreated) -> None:
    run.status = "running"
    run.goal = event.goal
    run.epic_id = event.epic_id
    run.options = event.options
    run.strategy = event.strategy
    run.open = event.open
    run.plan_digest = event.plan_digest
    run.deadline_at_ms = event.deadline_at_ms


def _tasks_added(run: Run, event: TasksAdded) -> None:
    tasks = run.tasks
    order = len(tasks)
    added = []
    for spec in event.tasks:
        task = TaskRecord(spec, order, is_group(spec))
        tasks[spec.id] = task
        added.append(task)
        order += 1
    run.open_count += len(added)
    for task in added:
        spec = task.spec
        for needed in spec.depends_on:
            other = tasks.get(needed)
            if other is None:
                run.unresolved.setdefault(needed, []).append(task)
                task.waiting_on += 1
            else:
                _depend(run, task, other)
        if spec.parent is not None:
            _adopt(run, task, tasks.get(spec.parent))
    for spec in event.tasks if run.unresolved else ():
        _resolve(run, tasks[spec.id])
    for task in added:
        if not task.waiting_on and may_start(task):
            make_ready(run, task)


def _resolve(run: Run, named: TaskRecord) -> None:
    """Link those that came before the task they name; links are in the order of the tasks, as in a restored run."""
    before = run.unresolved.pop(named.spec.id, ())
    for task in before:
        task.waiting_on -= 1
        if task.spec.parent == named.spec.id:
            _adopt(run, task, named)
        else:
            _depend(run, task, named)
    if before:
        named.dependents = sorted(named.dependents, key=lambda task: task.order)
        named.children = sorted(named.children, key=lambda task: task.order)


def _depend(run: Run, task: TaskRecord, other: TaskRecord) -> None:
    if other.status == "completed":
        return
    task.waiting_on += 1
    if other.dependents:
        other.dependents.append(task)
    else:
        other.dependents = [task]
    if other.status in TASK_STATES_FINAL:
        run.fallen.append(other)


def _adopt(run: Run, task: TaskRecord, parent: TaskRecord | None) -> None:
    if parent is None:
        run.unresolved.setdefault(task.spec.parent or "", []).append(task)
        task.waiting_on += 1
        return
    task.parent = parent
    parent.children_open += 1
    if parent.children:
        parent.children.append(task)
    else:
        parent.children = [task]


def _approval_requested(run: Run, event: TaskApprovalRequested) -> None:
    task = run.tasks[event.task_id]
    task.status = "waiting_approval"
    # The attempt counts from here: after a refusal and a resume, another gate is asked for.
    task.attempt = event.attempt
    task.gate = Gate(event.gate_id, event.digest, event.expires_at_ms)
    task.abandoned = ()
    taint.begun(run, task)
    _watch(run, task, event.expires_at_ms)


def _approved(run: Run, event: TaskApproved) -> None:
    task = run.tasks[event.task_id]
    if task.gate is not None:
        task.gate.user, task.gate.step, task.gate.at_ms = event.user, event.step, event.at_ms
    task.human = True
    task.status = "pending"
    task.due_at_ms = 0
    make_ready(run, task)


def _watch(run: Run, task: TaskRecord, deadline_at_ms: int) -> None:
    task.deadline_at_ms = deadline_at_ms
    run.ticket = ticket = run.ticket + 1
    heappush(run.deadlines, (deadline_at_ms, ticket, task, task.attempt, None))


def _started(run: Run, event: TaskStarted) -> None:
    task = run.tasks[event.task_id]
    task.status = "in_progress"
    task.attempt = event.attempt
    task.gate = None
    taint.begun(run, task)
    _watch(run, task, event.deadline_at_ms)
    task.abandoned = ()
    task.rank = None  # a later retry is chosen when its time has come, not by this attempt's old place
    if not task.is_group:
        run.running += 1
        return
    if not task.children_open:
        run.closing.append(task)
    for child in task.children:
        if child.status == "pending" and not child.waiting_on:
            make_ready(run, child)


def _completed(run: Run, event: TaskCompleted) -> None:
    task = run.tasks[event.task_id]
    if not task.is_group:
        run.running -= 1
    task.status = "completed"
    task.result = event.result
    task.error = None
    taint.completed(task)
    run.completed_count += 1
    run.open_count -= 1
    if task.work is not None:
        _forget_work(run, task)
    for dependent in task.dependents:
        dependent.waiting_on -= 1
        if not dependent.waiting_on and may_start(dependent):
            make_ready(run, dependent)
    if task.parent is not None:
        _child_ended(run, task.parent, bad=False)


def _failed(run: Run, event: TaskFailed) -> None:
    task = run.tasks[event.task_id]
    task.error = event.error
    run.failed_count += 1
    _fall(run, task, "failed")


def _blocked(run: Run, event: TaskBlocked) -> None:
    task = run.tasks[event.task_id]
    task.blocked_by = event.blocked_by
    _fall(run, task, "blocked")


def _cancelled(run: Run, event: TaskCancelled) -> None:
    run.cancelled_count += 1
    _fall(run, run.tasks[event.task_id], "cancelled")


def _fall(run: Run, task: TaskRecord, status: TaskState) -> None:
    """A task ended without completing: what depends on it, or is part of it, is looked at by `advance`."""
    if task.status == "in_progress" and not task.is_group:
        run.running -= 1
    task.status = status
    task.gate = None
    task.rank = None  # a release that got in line is no place for the attempt after a resume
    run.open_count -= 1
    if task.work is not None:
        _forget_work(run, task)
    if task.dependents or task.children:
        run.fallen.append(task)
    if task.parent is not None:
        _child_ended(run, task.parent, bad=True)


def _child_ended(run: Run, parent: TaskRecord, *, bad: bool) -> None:
    parent.children_open -= 1
    parent.children_bad += bad
    if not parent.children_open:
        run.closing.append(parent)


def _forget_work(run: Run, task: TaskRecord) -> None:
    """The attempt is over: calls that are still open are let go, and their answers only cost what they cost."""
    work = task.work
    if work is not None and work.calls:
        task.abandoned = [call.request for call in work.calls.values()]
        for request in task.abandoned:
            run.calls.pop(request.corr_id, None)
            run.let_go[request.corr_id] = task
    task.work = None


def _retry_scheduled(run: Run, event: TaskRetryScheduled) -> None:
    task = run.tasks[event.task_id]
    task.status = "pending"
    task.error = event.error
    task.due_at_ms = event.due_at_ms
    if opens_gate(task, event.error):
        task.human = True
        task.attempts_base += 1  # it was no try: nothing that a retry could mend has failed
    run.running -= 1
    _forget_work(run, task)
    heappush(run.retries, (event.due_at_ms, task.order, task))


def _reset(run: Run, event: TaskReset) -> None:
    task = run.tasks[event.task_id]
    if task.status == "failed":
        run.failed_count -= 1
    elif task.status == "cancelled":
        run.cancelled_count -= 1
    task.status = "pending"
    task.attempts_base = task.attempt
    task.error = None
    task.blocked_by = None
    task.due_at_ms = 0
    task.reworks = 0
    run.open_count += 1
    if task.parent is not None:
        task.parent.children_open += 1
        task.parent.children_bad -= 1
    if may_start(task):
        make_ready(run, task)


def _agents_spawned(run: Run, event: AgentsSpawned) -> None:
    task = run.tasks[event.task_id]
    task.work = Work(event.agents, event.pattern, event.strategy)
    if event.fallback:
        evolve_calls.plan_steps(task.work, [{"agent": 0, "after": []}])


def _orchestrated(run: Run, event: Orchestrated) -> None:
    work = run.tasks[event.task_id].work
    if work is not None:
        evolve_calls.plan_steps(work, event.steps)


def _judged(run: Run, event: TaskJudged) -> None:
    """The verdict is kept in the log; what follows from it comes as an event of its own."""


def _reworked(run: Run, event: TaskReworked) -> None:
    task = run.tasks[event.task_id]
    task.reworks = event.rework
    work = task.work
    if work is not None:
        work.rework = event.rework
        work.fixes = event.fixes
        work.talks.clear()
        evolve_calls.plan_steps(work, work.steps or [])


def _cancel_requested(run: Run, event: RunCancelRequested) -> None:
    run.cancel_reason = event.reason


def _resumed(run: Run, event: RunResumed) -> None:
    run.status = "running"
    run.deadline_at_ms = event.deadline_at_ms
    run.cancel_reason = None
    run.recorded_digest = None
    run.error = None
    if event.strategy is not None:
        run.strategy = None if event.strategy == NO_STRATEGY else event.strategy


def _ended(run: Run, event: RunEnded) -> None:
    run.status = event.status
    run.error = event.error
    run.recorded_digest = event.digest
    run.ended += 1
    run.ready.clear()
    run.deadlines.clear()
    run.retries.clear()
    run.fallen.clear()
    run.closing.clear()
    run.ready_groups.clear()
    run.ready_gates.clear()
    run.chosen.clear()


TAKERS: Final[Mapping[type, Callable[[Run, Any], None]]] = {
    RunCreated: _created,
    TasksAdded: _tasks_added,
    TaskApprovalRequested: _approval_requested,
    TaskApproved: _approved,
    TaskStarted: _started,
    TaskCompleted: _completed,
    TaskFailed: _failed,
    TaskRetryScheduled: _retry_scheduled,
    TaskBlocked: _blocked,
    TaskCancelled: _cancelled,
    TaskReset: _reset,
    AgentsSpawned: _agents_spawned,
    Orchestrated: _orchestrated,
    LlmRequested: evolve_calls.llm_requested,
    LlmAwaited: evolve_calls.llm_awaited,
    LlmAnswered: evolve_calls.llm_answered,
    LlmSettled: evolve_calls.llm_settled,
    ToolRequested: evolve_calls.tool_requested,
    ToolAnswered: evolve_calls.tool_answered,
    TaskJudged: _judged,
    TaskReworked: _reworked,
    RunCancelRequested: _cancel_requested,
    RunResumed: _resumed,
    RunEnded: _ended,
}
