"""What follows by itself: consequences of failures, ends of groups, starts of ready tasks, the end of the run.

Called until nothing follows any more. It may drop index entries that no longer hold; the run stays as it is.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from contracts.errors import failure
from contracts.limits import TASK_TIMEOUT_DEFAULT_MS
from contracts.run import RunEnded, RunEvent, TaskBlocked, TaskCancelled, TaskCompleted, TaskFailed, TaskStarted
from contracts.task import TASK_STATES_FINAL, AgentNode, ApprovalNode, LlmNode, ToolNode
from services.executor.run.decide import RUN_DEADLINE
from services.executor.run.gates import Gating, asked, expired, released, waits_for_human
from services.executor.run.llm_steps import opening
from services.executor.run.state import Run, TaskRecord, choose_from, counts, digest, make_ready, may_start

GATED = Gating()
FAIL_FAST = "another task failed and the run fails fast"
OPENED = frozenset({AgentNode, LlmNode, ToolNode})
"""Nodes whose first call is decided together with their start."""


def advance(run: Run, now_ms: int, gating: Gating = GATED) -> Sequence[RunEvent]:
    """The next facts that follow from the state and the time; () when none do."""
    if run.status != "running":
        return ()
    if run.failed_count and run.open_count and run.options.fail_fast:
        open_ids = (task.spec.id for task in run.tasks.values() if task.status not in TASK_STATES_FINAL)
        return [TaskCancelled(task_id, FAIL_FAST) for task_id in open_ids]
    if run.fallen:
        events = _consequences(run)
        if events:
            return events
        run.fallen.clear()
    if run.closing:
        events = _group_ends(run)
        if events:
            return events
        run.closing.clear()
    if run.retries:
        _wake_retries(run, now_ms)
    if run.ready_groups:
        events = _group_starts(run, now_ms)
        if events:
            return events
        run.ready_groups.clear()
    if run.ready_gates and (events := _gate_requests(run, now_ms, gating)):
        return events
    if run.ready or run.chosen:
        events = _starts(run, now_ms)
        if events:
            return events
    if not run.open_count:
        return (_end(run),)
    return ()


def _consequences(run: Run) -> list[RunEvent]:
    """Whatever depends on a task that did not complete is blocked; whatever is part of one ends with it."""
    events: list[RunEvent] = []
    seen: set[str] = set()
    queue = [task for task in run.fallen if task.status in TASK_STATES_FINAL]
    blockers = {task.spec.id: task.blocked_by or task.spec.id for task in queue}
    for task in queue:
        blocker = blockers[task.spec.id]
        for dependent in task.dependents:
            if dependent.status == "pending" and dependent.spec.id not in seen:
                _block(dependent, blocker, events, seen, queue, blockers)
        for child in task.children:
            if child.spec.id in seen or child.status in TASK_STATES_FINAL:
                continue
            if child.status == "pending":
                _block(child, blocker, events, seen, queue, blockers)
            else:
                seen.add(child.spec.id)
                blockers[child.spec.id] = blocker
                queue.append(child)
                events.append(TaskCancelled(child.spec.id, f"{task.spec.id}, which it is part of, ended"))
    return events


def _block(
    task: TaskRecord,
    blocker: str,
    events: list[RunEvent],
    seen: set[str],
    queue: list[TaskRecord],
    blockers: dict[str, str],
) -> None:
    task_id = task.spec.id
    seen.add(task_id)
    blockers[task_id] = blocker
    queue.append(task)
    events.append(TaskBlocked(task_id, blocker))


def _group_ends(run: Run) -> list[RunEvent]:
    events: list[RunEvent] = []
    for group in dict.fromkeys(run.closing):
        if group.status != "in_progress" or group.children_open:
            continue
        task_id = group.spec.id
        if group.children_bad:
            first = next(child for child in group.children if child.status != "completed")
            error = failure("child_failed", child=first.spec.id, children_bad=group.children_bad)
            events.append(TaskFailed(task_id, group.attempt, error))
        else:
            result = {"decomposed": True, "subtask_count": len(group.children)}
            events.append(TaskCompleted(task_id, group.attempt, result))
    return events


def _group_starts(run: Run, now_ms: int) -> list[RunEvent]:
    """Groups take no room: they only stand for their children, until the run's deadline unless they have their own."""
    events: list[RunEvent] = []
    for group in dict.fromkeys(run.ready_groups):
        if may_start(group):
            timeout_ms = group.spec.timeout_ms
            deadline = run.deadline_at_ms if timeout_ms is None else min(now_ms + timeout_ms, run.deadline_at_ms)
            events.append(TaskStarted(group.spec.id, group.attempt + 1, deadline))
    return events


def _gate_requests(run: Run, now_ms: int, gating: Gating) -> list[RunEvent]:
    """Whoever waits for a human takes no room. What needs none after all gets in line with the others."""
    events: list[RunEvent] = []
    # An entry counts for the attempt that it was made for: a retry that is not due yet may have an older one.
    ready = {order: task for order, attempt, task in run.ready_gates if task.attempt == attempt}
    for _, task in sorted(ready.items()):
        if task.gate is not None or not may_start(task):
            continue
        if waits_for_human(task, gating):
            events.append(asked(run, task, gating, now_ms))
        else:
            choose_from(run, task)
    if not events:
        run.ready_gates.clear()
    return events


def _wake_retries(run: Run, now_ms: int) -> None:
    retries = run.retries
    while retries and retries[0][0] <= now_ms:
        due_at_ms, _, task = heappop(retries)
        if task.due_at_ms == due_at_ms and may_start(task):
            make_ready(run, task)


def _starts(run: Run, now_ms: int) -> list[RunEvent]:
    """Start what is ready, in the order of choice, as far as there is room.

    Entries taken from the heap are remembered as `chosen`; those whose start was not recorded go back into it.
    """
    ready = run.ready
    chosen = run.chosen
    if chosen:
        for rank in chosen:
            if rank[4].rank is rank and rank[4].status == "pending":
                heappush(ready, rank)
        chosen.clear()
    room = run.options.parallel - run.running
    run_deadline = run.deadline_at_ms
    default_deadline = min(now_ms + TASK_TIMEOUT_DEFAULT_MS, run_deadline)
    events: list[RunEvent] = []
    while room > 0 and ready:
        rank = heappop(ready)
        task = rank[4]
        if task.rank is not rank or task.status != "pending":
            continue
        chosen.append(rank)
        gate = task.gate
        if gate is not None and gate.expires_at_ms <= now_ms:
            events.append(expired(task))
            continue
        spec = task.spec
        attempt = task.attempt + (gate is None)
        timeout_ms = spec.timeout_ms
        deadline = default_deadline if timeout_ms is None else min(now_ms + timeout_ms, run_deadline)
        events.append(TaskStarted(spec.id, attempt, deadline))
        if gate is not None and type(spec.node) is ApprovalNode:
            # Nothing is left to do: it takes no room.
            events.append(TaskCompleted(spec.id, attempt, released(gate)))
            continue
        room -= 1
        if type(spec.node) in OPENED:
            events.extend(opening(run, task, attempt, now_ms, deadline))
    return events


def _end(run: Run) -> RunEnded:
    reached = counts(run)
    if run.cancel_reason == RUN_DEADLINE:
        return RunEnded("failed", reached, digest(run), failure("timeout", RUN_DEADLINE))
    if run.cancel_reason is not None:
        return RunEnded("cancelled", reached, digest(run), failure("cancelled", run.cancel_reason or None))
    if run.failed_count:
        return RunEnded("failed", reached, digest(run), _first_error(run))
    if reached.get("blocked"):
        # Nothing failed, but a cancelled task left others behind that never ran: that is no success.
        return RunEnded("failed", reached, digest(run), failure("cancelled", "tasks waited for one that was cancelled"))
    return RunEnded("completed", reached, digest(run))


def _first_error(run: Run) -> dict[str, Any] | None:
    failed = next((task for task in run.tasks.values() if task.status == "failed" and not task.is_group), None)
    failed = failed or next((task for task in run.tasks.values() if task.status == "failed"), None)
    if failed is None or failed.error is None:
        return None
    return {**failed.error, "task_id": failed.spec.id}
