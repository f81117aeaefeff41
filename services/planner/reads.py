"""What queries read: epics, plans and task states, each as fresh as the log."""

from collections import OrderedDict
from typing import Any, Final

from contracts.epic import DEFAULT_EPIC, GoalPlanned
from contracts.errors import Rejected
from contracts.streams import EVENTS_EXECUTOR, EVENTS_PLANNER
from contracts.subjects import events as event_subject
from services.planner.epic.state import open_run_of
from services.planner.epic_list import EpicList
from services.planner.epic_reading import EpicReading, planned_in
from services.planner.task_board import BoardTask, TaskBoard, result_in
from services.planner.unreadable import Unreadable
from services.runtime.bus import Bus
from services.runtime.folded_log import FoldedLog

RECENT_RUNS_MAX: Final = 10_000


class Reads:
    """Merges the planner's log (what was accepted) with the executor's (what became of it)."""

    def __init__(self, bus: Bus, epic_list: EpicList, unreadable: Unreadable) -> None:
        self._bus = bus
        self._list = epic_list
        self._epics: FoldedLog[EpicReading] = FoldedLog(
            lambda subject, after: bus.history(EVENTS_PLANNER, subject, after),
            EpicReading,
            lambda reading, record: unreadable.take("epic", reading.take, record),
        )
        self._boards: FoldedLog[TaskBoard] = FoldedLog(
            lambda subject, after: bus.history(EVENTS_EXECUTOR, subject, after),
            TaskBoard,
            lambda board, record: unreadable.take("run", board.take, record),
        )
        self._recent: OrderedDict[str, str] = OrderedDict()

    def note_run(self, run_id: str, epic_id: str) -> None:
        """Remember the epic of a run until the executor's own log tells it."""
        self._recent[run_id] = epic_id
        while len(self._recent) > RECENT_RUNS_MAX:
            self._recent.popitem(last=False)

    async def epic(self, epic_id: str) -> EpicReading:
        """An epic, up to now; its `created` is None when there is none."""
        return await self._epics.get(event_subject("planner", "epic", epic_id))

    async def board(self, run_id: str) -> TaskBoard:
        """The tasks of a run as the executor knows them, up to now; empty when it has not begun."""
        return await self._boards.get(event_subject("executor", "run", run_id))

    async def plan(self, run_id: str, epic_id: str) -> GoalPlanned | None:
        """The stored plan of a run, looked for in this epic."""
        reading = await self.epic(epic_id)
        seq = reading.plan_seqs.get(run_id)
        if seq is None:
            return None
        async for record in self._bus.history(EVENTS_PLANNER, event_subject("planner", "epic", epic_id), seq - 1):
            return planned_in(record, run_id)
        return None

    async def epic_of_run(self, run_id: str, named: str | None = None) -> str:
        """The epic of a run: the one that is named, else what this planner or the executor remembers, else default."""
        if named is not None:
            return named
        board = await self.board(run_id)
        if board.created is not None and board.created.epic_id is not None:
            return board.created.epic_id
        return self._recent.get(run_id) or self._list.epic_of(run_id) or DEFAULT_EPIC

    async def task(self, task_id: str, run_id: str | None, epic_id: str | None) -> tuple[str, BoardTask]:
        """A task and the run it belongs to. Raises Rejected("task_not_found")."""
        run = run_id or open_run_of(epic_id or DEFAULT_EPIC)
        board = await self.board(run)
        task = board.tasks.get(task_id)
        if task is None and task_id in await self._accepted(run, epic_id):
            task = BoardTask()
        if task is None:
            raise Rejected("task_not_found", f"there is no task {task_id} in run {run}", task_id=task_id, run_id=run)
        return run, task

    async def states(self, run_id: str | None, epic_id: str | None) -> dict[str, str]:
        """State of every task of a run, or of an epic's open run. Raises run_not_found or epic_not_found."""
        run = run_id or open_run_of(epic_id or DEFAULT_EPIC)
        board = await self.board(run)
        accepted = await self._accepted(run, epic_id)
        if not board.tasks and not accepted and board.created is None:
            await self._refuse_unknown(run_id, epic_id)
        return {**dict.fromkeys(accepted, "pending"), **board.states()}

    async def result(self, run_id: str, task: BoardTask, task_id: str) -> Any:
        """The result of a completed task, read from the commit that completed it."""
        subject = event_subject("executor", "run", run_id)
        async for record in self._bus.history(EVENTS_EXECUTOR, subject, task.seq - 1):
            return result_in(record, task_id)
        raise Rejected("task_not_found", f"the result of {task_id} is gone from the log", task_id=task_id)

    async def _accepted(self, run_id: str, epic_id: str | None) -> list[str]:
        """Tasks that this planner's log holds for a run, whatever the executor knows."""
        of_epic = await self.epic_of_run(run_id, epic_id)
        reading = await self.epic(of_epic)
        if run_id == open_run_of(of_epic):
            return list(reading.epic.bodies)
        planned = await self.plan(run_id, of_epic)
        return [task.id for task in planned.tasks] if planned else []

    async def _refuse_unknown(self, run_id: str | None, epic_id: str | None) -> None:
        if run_id is not None:
            raise Rejected("run_not_found", f"there is no run {run_id}", run_id=run_id)
        if epic_id is not None and (await self.epic(epic_id)).epic.created is None:
            raise Rejected("epic_not_found", f"there is no epic {epic_id}", epic_id=epic_id)
