"""Judging one mailbox message against the facts. Pure: time comes in, events or a refusal go out."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any, Final

import msgspec

from contracts.approval import TakeApproval
from contracts.errors import Rejected, failure
from contracts.run import (
    AddTasks,
    CancelRun,
    LlmAwaited,
    ResumeRun,
    RunCancelRequested,
    RunCommand,
    RunCreated,
    RunEvent,
    RunResumed,
    StartRun,
    TakeAnswer,
    TakeResult,
    TakeTime,
    TaskCancelled,
    TaskReset,
    TasksAdded,
)
from contracts.run_tools import TakeToolResult
from contracts.strategy import NO_STRATEGY
from contracts.subjects import check_id
from contracts.task import TASK_STATES_FINAL, TaskSpec
from services.executor import graph
from services.executor.run.attempts import take_answer, take_result
from services.executor.run.failures import ended_badly
from services.executor.run.gates import expired, take_approval
from services.executor.run.state import Run, TaskRecord, deadline_holds, is_terminal
from services.executor.run.tool_steps import take_tool_result

EVENT_BYTES_MAX: Final = 256 << 10
"""A graph bigger than this is added by several events, so that a commit can be split into parts."""
RUN_DEADLINE: Final = "the deadline of the run passed"
_ENCODE = msgspec.json.Encoder().encode


def decide(command: RunCommand, run: Run, now_ms: int) -> Sequence[RunEvent]:
    """Events that `command` leads to, at most; raises Rejected to refuse a wish."""
    return JUDGES[type(command)](command, run, now_ms)


def plan_digest(tasks: Sequence[TaskSpec]) -> str:
    """Identifies the tasks that a run is started with."""
    return _digest_of(_ENCODE(tasks))


def _begun_with(run: Run, tasks: Sequence[TaskSpec]) -> bool:
    """Whether a run began with just these tasks; a default that is spelt out changes the digest, but not the plan."""
    return len(run.tasks) == len(tasks) and [record.spec for record in run.tasks.values()] == list(tasks)


def _digest_of(encoded: bytes) -> str:
    return hashlib.sha256(encoded).hexdigest()


def check_start(command: StartRun) -> None:
    """Refuse a run that may not begin, whatever else there is. What passes here is refused by nothing but its id."""
    check_id(command.run_id, "run_id")
    if not command.tasks and not command.open:
        raise Rejected("bad_request", "a run needs at least one task", field="tasks")
    graph.check_options(command.options)
    graph.check_tasks(command.tasks)


def _start(command: StartRun, run: Run, now_ms: int) -> Sequence[RunEvent]:
    encoded = _ENCODE(command.tasks)
    asked = _digest_of(encoded)
    if run.status is not None:
        if run.plan_digest == asked or _begun_with(run, command.tasks):
            return ()
        raise Rejected("duplicate_id", f"the run {run.run_id} exists with another plan", id=run.run_id)
    check_start(command)
    created = RunCreated(
        run_id=command.run_id,
        deadline_at_ms=now_ms + command.options.timeout_ms,
        goal=command.goal,
        epic_id=command.epic_id,
        options=command.options,
        strategy=command.strategy,
        open=command.open,
        plan_digest=asked,
    )
    return [created, *_added(command.tasks, len(encoded))]


def _added(tasks: Sequence[TaskSpec], size: int) -> list[RunEvent]:
    if not tasks:
        return []
    if size <= EVENT_BYTES_MAX:
        return [TasksAdded(list(tasks))]
    events: list[RunEvent] = []
    chunk: list[TaskSpec] = []
    filled = 0
    for spec in tasks:
        more = len(_ENCODE(spec))
        if chunk and filled + more > EVENT_BYTES_MAX:
            events.append(TasksAdded(chunk))
            chunk, filled = [], 0
        chunk.append(spec)
        filled += more
    return [*events, TasksAdded(chunk)]


class _Known(Mapping[str, bool]):
    """The tasks that are there: id to "takes children", without a copy."""

    def __init__(self, tasks: Mapping[str, TaskRecord]) -> None:
        self._tasks = tasks

    def __getitem__(self, task_id: str) -> bool:
        task = self._tasks[task_id]
        return task.is_group and task.status not in TASK_STATES_FINAL

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def _add(command: AddTasks, run: Run, now_ms: int) -> Sequence[RunEvent]:
    if run.status is None:
        begin = StartRun(
            command.run_id,
            epic_id=command.epic_id,
            tasks=command.tasks,
            options=command.options,
            strategy=command.strategy,
            open=True,
        )
        return _start(begin, run, now_ms)
    new: list[TaskSpec] = []
    for spec in command.tasks:
        there = run.tasks.get(spec.id)
        if there is None:
            new.append(spec)
        elif there.spec != spec:
            raise Rejected("duplicate_id", f"another task is called {spec.id}", id=spec.id)
    if not new:
        return ()
    if not run.open:
        if is_terminal(run):
            raise Rejected("already_finished", run_id=run.run_id)
        raise Rejected("conflict", "the run takes no more tasks: it was not started open", run_id=run.run_id)
    graph.check_tasks(new, _Known(run.tasks))
    if any(spec.parent in run.tasks for spec in new):  # only then can a new edge close a circle through old tasks
        graph.order([*(task.spec for task in run.tasks.values()), *new])
    events: list[RunEvent] = []
    if is_terminal(run):
        # At rest nothing follows the old strategy any more: what is added follows the one that was chosen for it.
        strategy = None if command.strategy == run.strategy else command.strategy or NO_STRATEGY
        events.append(RunResumed(now_ms + run.options.timeout_ms, "tasks were added", strategy))
    elif run.deadline_at_ms - now_ms < run.options.timeout_ms // 2:
        events.append(RunResumed(now_ms + run.options.timeout_ms, "tasks were added"))
    return [*events, *_added(new, len(_ENCODE(new)))]


def _cancel(command: CancelRun, run: Run, now_ms: int) -> Sequence[RunEvent]:
    if run.status is None:
        raise Rejected("run_not_found", run_id=run.run_id)
    if not is_terminal(run):
        _check_aim(command, run)
    if command.task_id is not None:
        return _cancel_task(run, command.task_id, command.reason)
    if run.status == "cancelled":
        return ()
    if is_terminal(run):
        raise Rejected("already_finished", run_id=run.run_id)
    return cancel_all(run, command.reason)


def _check_aim(command: CancelRun | ResumeRun, run: Run) -> None:
    """Refuse what was said before the run ended last: a stored message may come again days later."""
    if command.aimed_at and command.aimed_at != run.ended + 1:
        raise Rejected("conflict", "the run has ended since this was said", run_id=run.run_id, ended=run.ended)


def cancel_all(run: Run, reason: str) -> list[RunEvent]:
    """Stop everything that is open; the end of the run follows by itself."""
    events: list[RunEvent] = [RunCancelRequested(reason)]
    open_ids = (task.spec.id for task in run.tasks.values() if task.status not in TASK_STATES_FINAL)
    events.extend(TaskCancelled(task_id, reason) for task_id in open_ids)
    return events


def _cancel_task(run: Run, task_id: str, reason: str) -> Sequence[RunEvent]:
    task = run.tasks.get(task_id)
    if task is None:
        raise Rejected("task_not_found", task_id=task_id[:64])
    if task.status == "cancelled":
        return ()
    if task.status in TASK_STATES_FINAL or is_terminal(run):
        hint = "`htdag runs show` says how it ended"
        raise Rejected("already_finished", "the task has ended", task_id=task_id, status=task.status, hint=hint)
    return (TaskCancelled(task_id, reason),)


def _resume(command: ResumeRun, run: Run, now_ms: int) -> Sequence[RunEvent]:
    if run.status is None:
        raise Rejected("run_not_found", run_id=run.run_id)
    if not is_terminal(run):
        return ()
    _check_aim(command, run)
    again = [
        TaskReset(t.spec.id) for t in run.tasks.values() if t.status in TASK_STATES_FINAL and t.status != "completed"
    ]
    if not again:
        hint = "start a new run: there is nothing to try again"
        raise Rejected("already_finished", "every task completed", run_id=run.run_id, hint=hint)
    return [RunResumed(now_ms + run.options.timeout_ms, command.reason), *again]


def _take_time(command: TakeTime, run: Run, now_ms: int) -> Sequence[RunEvent]:
    if run.status != "running":
        return ()
    if now_ms >= run.deadline_at_ms:
        return cancel_all(run, RUN_DEADLINE)
    heap = run.deadlines
    due = []
    while heap and heap[0][0] <= now_ms:
        entry = heappop(heap)
        if deadline_holds(run, entry):
            due.append(entry)
    for entry in due:  # judging changes nothing: what these entries say ends with the events below
        heappush(heap, entry)
    events: list[RunEvent] = []
    over: set[str] = set()
    for at_ms, _, task, _, corr_id in due:
        if task.spec.id not in over:
            event = _overdue(command, run, task, at_ms, corr_id, now_ms)
            events.append(event)
            if type(event) is not LlmAwaited:
                over.add(task.spec.id)
    return events


def _overdue(command: TakeTime, run: Run, task: TaskRecord, at_ms: int, corr_id: str | None, now_ms: int) -> RunEvent:
    if task.gate is not None:
        return expired(task)
    call = run.calls[corr_id] if corr_id is not None else None
    if call is not None and corr_id is not None and command.llm_alive and call.last_deadline_at_ms > now_ms:
        return LlmAwaited(task.spec.id, corr_id, call.last_deadline_at_ms)
    code = "timeout" if corr_id is None or command.llm_alive else "llm_unavailable"
    detail: dict[str, Any] = {"deadline_at_ms": at_ms}
    if corr_id is not None:
        detail["corr_id"] = corr_id
    return ended_badly(run, task, failure(code, **detail), now_ms)


JUDGES: Final[Mapping[type, Callable[[Any, Run, int], Sequence[RunEvent]]]] = {
    StartRun: _start,
    AddTasks: _add,
    CancelRun: _cancel,
    ResumeRun: _resume,
    TakeAnswer: take_answer,
    TakeApproval: take_approval,
    TakeResult: take_result,
    TakeToolResult: take_tool_result,
    TakeTime: _take_time,
}
