"""The tasks of a run as the executor's log tells them: enough to answer status, result and graph."""

from typing import Any, Final

import msgspec

from contracts.codec import CommitCodec
from contracts.run import (
    RunCreated,
    RunEnded,
    RunEvent,
    RunResumed,
    TaskBlocked,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskReset,
    TaskRetryScheduled,
    TasksAdded,
    TaskStarted,
)
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.strategy import NO_STRATEGY
from contracts.task import TaskState
from services.runtime.event_store import Recorded

RUN_CODEC: Final[CommitCodec[RunEvent]] = CommitCodec(RunEvent)


class BoardTask(msgspec.Struct):
    """One task. `seq` is where its result stands in the log; results themselves are not held."""

    state: TaskState = "pending"
    seq: int = 0
    error: dict[str, Any] | None = None
    blocked_by: str | None = None


class TaskBoard:
    """A fold of one run's log."""

    def __init__(self) -> None:
        self.created: RunCreated | None = None
        self.strategy: str | None = None
        self.running = False
        self.tasks: dict[str, BoardTask] = {}

    @property
    def weight(self) -> int:
        """Tasks held."""
        return len(self.tasks) + 1

    def take(self, record: Recorded) -> None:
        """Take in one commit of the run."""
        for event in RUN_CODEC.decode(record.data, skip_unknown=True).events:
            self._take(event, record.seq)

    def states(self) -> dict[str, str]:
        """State of every task by id, in order of arrival."""
        return {task_id: task.state for task_id, task in self.tasks.items()}

    def _take(self, event: RunEvent, seq: int) -> None:
        match event:
            case RunCreated():
                self.created, self.strategy, self.running = event, event.strategy, True
            case RunResumed():
                self.running = True
                if event.strategy is not None:
                    self.strategy = None if event.strategy == NO_STRATEGY else event.strategy
            case RunEnded():
                self.running = False
            case TasksAdded():
                for spec in event.tasks:
                    self.tasks.setdefault(spec.id, BoardTask())
            case TaskStarted():
                self._put(event.task_id, BoardTask("in_progress"))
            case TaskCompleted():
                self._put(event.task_id, BoardTask("completed", seq))
            case TaskFailed():
                self._put(event.task_id, BoardTask("failed", error=event.error))
            case TaskBlocked():
                self._put(event.task_id, BoardTask("blocked", blocked_by=event.blocked_by))
            case TaskCancelled():
                self._put(event.task_id, BoardTask("cancelled"))
            case TaskApprovalRequested():
                self._put(event.task_id, BoardTask("waiting_approval"))
            case TaskReset() | TaskRetryScheduled() | TaskApproved():
                self._put(event.task_id, BoardTask("pending"))
            case _:
                return  # what happens inside an attempt changes no state that is shown here

    def _put(self, task_id: str, task: BoardTask) -> None:
        self.tasks[task_id] = task


def result_in(record: Recorded, task_id: str) -> Any:
    """The result of a task from the commit that completed it."""
    for event in RUN_CODEC.decode(record.data, skip_unknown=True).events:
        if isinstance(event, TaskCompleted) and event.task_id == task_id:
            return event.result
    return None
