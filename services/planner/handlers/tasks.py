"""`task.enqueue`, `task.status`, `task.result`, `task.graph`."""

from typing import Any

from contracts.epic import EpicEvent
from contracts.errors import Rejected
from contracts.requests import GraphRef, TaskEnqueue, TaskRef
from contracts.strategy import choice_texts
from contracts.subjects import check_id
from contracts.task import TaskSpec
from services.planner.epic.decider import EPIC, EnqueueTasks, EpicCommand
from services.planner.epic.state import Epic
from services.planner.epic_list import EpicList
from services.planner.hand_overs import HandOvers
from services.planner.intake import accept_tasks
from services.planner.options import accept_options
from services.planner.reads import Reads
from services.planner.strategy_book import StrategyBook
from services.runtime.actor import ActorHost
from services.runtime.rpc import Caller


class TaskHandlers:
    """Takes tasks in and tells what became of them."""

    def __init__(
        self,
        *,
        host: ActorHost[EpicCommand, Epic, EpicEvent],
        book: StrategyBook,
        reads: Reads,
        epic_list: EpicList,
        hand_overs: HandOvers,
    ) -> None:
        self._host, self._book, self._reads = host, book, reads
        self._list, self._hand_overs = epic_list, hand_overs

    async def enqueue(self, request: TaskEnqueue, caller: Caller) -> str | list[str]:
        """Accept one task or a batch, whole or not at all, and hand it over. Answers the id, or the ids.

        An epic has one open run. While that is under way it has one strategy, and a batch that names another is
        refused with `conflict`; a batch that finds it at rest brings its own, named or found by its text.
        """
        tasks = accept_tasks(_asked(request))
        accept_options(request.options)
        epic_id = check_id(request.epic_id, "epic_id")
        strategy = self._strategy_for(tasks, request.strategy)
        if request.strategy is not None:
            await self._check_named(strategy, tasks, epic_id)
        command = EnqueueTasks(tasks, strategy, request.options, caller.by)
        outcome = await self._host.ask(epic_id, command, message_id=caller.message_id, by=caller.by, corr=caller.corr)
        self._list.note(epic_id, EPIC.summary(outcome.state), outcome.seq)
        await self._hand_overs.wait(outcome.state.run_id)
        return tasks[0].id if request.task is not None else [task.id for task in tasks]

    async def status(self, request: TaskRef, _caller: Caller) -> str:
        """State of one task. Raises task_not_found."""
        _, task = await self._reads.task(*_reference(request))
        return task.state

    async def result(self, request: TaskRef, _caller: Caller) -> Any:
        """Result of a completed task. Raises task_not_found, or not_completed with its state and error."""
        run_id, task = await self._reads.task(*_reference(request))
        if task.state == "completed":
            return await self._reads.result(run_id, task, request.task_id)
        detail: dict[str, Any] = {"task_id": request.task_id, "run_id": run_id, "state": task.state}
        if task.error is not None:
            detail["error"] = task.error
        if task.blocked_by is not None:
            detail["blocked_by"] = task.blocked_by
        if task.state in ("failed", "blocked", "cancelled"):
            detail["hint"] = f"`htdag runs show {run_id}` says why; `htdag runs resume {run_id}` tries it again"
        raise Rejected("not_completed", f"task {request.task_id} is {task.state}", **detail)

    async def graph(self, request: GraphRef, _caller: Caller) -> dict[str, str]:
        """State of every task by id. Raises run_not_found or epic_not_found."""
        for field, value in (("run_id", request.run_id), ("epic_id", request.epic_id)):
            if value is not None:
                check_id(value, field)
        return await self._reads.states(request.run_id, request.epic_id)

    async def _check_named(self, strategy: str | None, tasks: list[TaskSpec], epic_id: str) -> None:
        """Raise conflict when the open run is under way with another strategy than the one that is named."""
        epic = (await self._reads.epic(epic_id)).epic
        if all(task.id in epic.bodies for task in tasks):
            return  # said twice: nothing is added
        board = await self._reads.board(epic.run_id)
        arrived = not epic.newest_task or epic.newest_task in board.tasks
        now = board.strategy if arrived else epic.newest_strategy
        if (board.running or not arrived) and now != strategy:
            raise Rejected(
                "conflict",
                f"epic {epic_id} is under way with {now or 'no strategy'}",
                strategy=now,
                requested=strategy,
                hint="wait until its tasks have ended, or use another epic",
            )

    def _strategy_for(self, tasks: list[TaskSpec], named: str | None) -> str | None:
        if named is not None:
            choice = self._book.named(named)
        else:
            # A batch without agents may be the first of an epic whose agents come later.
            texts = choice_texts(tasks) or [f"{tasks[0].title} {tasks[0].description}"]
            choice = self._book.choose(*texts)
        return choice.label if choice else None


def _asked(request: TaskEnqueue) -> list[TaskSpec]:
    if (request.task is None) == (request.tasks is None):
        raise Rejected("bad_request", "give either task or tasks", field="task")
    return [request.task] if request.task is not None else list(request.tasks or ())


def _reference(request: TaskRef) -> tuple[str, str | None, str | None]:
    for field, value in (("task_id", request.task_id), ("run_id", request.run_id), ("epic_id", request.epic_id)):
        if value is not None:
            check_id(value, field)
    return request.task_id, request.run_id, request.epic_id
