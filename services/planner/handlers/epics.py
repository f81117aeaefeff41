"""`epic.create`, `epic.update`, `epic.get`, `epic.list`."""

from typing import Final

from contracts.epic import EpicEvent, EpicView
from contracts.errors import Rejected
from contracts.limits import TITLE_CHARS_MAX
from contracts.requests import EpicCreate, EpicRef, EpicUpdate, Page
from contracts.subjects import check_id
from services.planner.epic.decider import EPIC, CreateEpic, EpicCommand, UpdateEpic
from services.planner.epic.state import Epic
from services.planner.epic_list import RUNS_PER_EPIC_MAX, EpicList
from services.planner.epic_spending import EpicSpending
from services.planner.reads import Reads
from services.runtime.actor import ActorHost
from services.runtime.clock import rfc3339
from services.runtime.ids import Ids
from services.runtime.rpc import Caller

PAGE_MAX: Final = 500


class EpicHandlers:
    """Creates epics and shows them with the progress of their runs."""

    def __init__(
        self,
        *,
        host: ActorHost[EpicCommand, Epic, EpicEvent],
        reads: Reads,
        epic_list: EpicList,
        spending: EpicSpending,
        ids: Ids,
    ) -> None:
        self._host, self._reads, self._list, self._spending, self._ids = host, reads, epic_list, spending, ids

    async def create(self, request: EpicCreate, caller: Caller) -> EpicView:
        """Create an epic; the same again answers the same, another body under the id is duplicate_id."""
        _check(request)
        epic_id = check_id(request.epic_id, "epic_id") if request.epic_id is not None else self._ids.new()
        command = CreateEpic(
            title=request.title,
            description=request.description,
            priority=request.priority,
            budget_usd_micros=request.budget_usd_micros,
            budget_tokens=request.budget_tokens,
            by=caller.by,
        )
        outcome = await self._host.ask(epic_id, command, message_id=caller.message_id, by=caller.by, corr=caller.corr)
        self._list.note(epic_id, EPIC.summary(outcome.state), outcome.seq)
        return self._view(outcome.state)

    async def update(self, request: EpicUpdate, caller: Caller) -> EpicView:
        """Change an epic; what is left out stays. Raises epic_not_found."""
        _check(request)
        command = UpdateEpic(
            title=request.title,
            description=request.description,
            priority=request.priority,
            budget_usd_micros=request.budget_usd_micros,
            budget_tokens=request.budget_tokens,
        )
        epic_id = check_id(request.epic_id, "epic_id")
        outcome = await self._host.ask(epic_id, command, message_id=caller.message_id, by=caller.by, corr=caller.corr)
        self._list.note(epic_id, EPIC.summary(outcome.state), outcome.seq)
        return self._view(outcome.state)

    async def get(self, request: EpicRef, _caller: Caller) -> EpicView:
        """One epic. Raises epic_not_found."""
        reading = await self._reads.epic(check_id(request.epic_id, "epic_id"))
        if reading.epic.created is None:
            raise Rejected("epic_not_found", f"there is no epic {request.epic_id}", epic_id=request.epic_id)
        return self._view(reading.epic)

    async def page(self, request: Page, _caller: Caller) -> list[EpicView]:
        """A page of epics, newest first. Runs are listed by `epic.get`."""
        if not 1 <= request.limit <= PAGE_MAX:
            raise Rejected("bad_request", f"limit must be 1 to {PAGE_MAX}", field="limit", min=1, max=PAGE_MAX)
        views = []
        for epic_id, row in self._list.page(request.limit, request.after):
            progress, spent = self._list.progress(epic_id), self._spending.of(epic_id)
            views.append(
                EpicView(
                    epic_id=epic_id,
                    title=row.title,
                    description=row.description,
                    priority=row.priority,
                    created_by=row.created_by,
                    created_at=rfc3339(row.created_at_ms),
                    total=progress.total,
                    completed=progress.completed,
                    failed=progress.failed,
                    budget_usd_micros=row.budget_usd_micros,
                    budget_tokens=row.budget_tokens,
                    spent_usd_micros=spent.usd_micros,
                    spent_tokens=spent.tokens,
                    cost_unknown=spent.unknown > 0,
                )
            )
        return views

    def _runs_of(self, epic: Epic) -> list[str]:
        """Every run: those of its goals, those that were started beside the planner, and its open one."""
        own = epic.runs()
        others = [run for run in self._list.runs(epic.epic_id) if run not in own]
        return [*epic.goals, *others, *own[len(epic.goals) :]]

    def _view(self, epic: Epic) -> EpicView:
        created = epic.created
        if created is None:
            raise Rejected("epic_not_found", f"there is no epic {epic.epic_id}", epic_id=epic.epic_id)
        progress, spent = self._list.progress(epic.epic_id), self._spending.of(epic.epic_id)
        return EpicView(
            epic_id=epic.epic_id,
            title=created.title,
            description=created.description,
            priority=created.priority,
            created_by=created.created_by,
            created_at=rfc3339(created.created_at_ms),
            runs=self._runs_of(epic)[-RUNS_PER_EPIC_MAX:],
            total=progress.total,
            completed=progress.completed,
            failed=progress.failed,
            budget_usd_micros=created.budget_usd_micros,
            budget_tokens=created.budget_tokens,
            spent_usd_micros=spent.usd_micros,
            spent_tokens=spent.tokens,
            cost_unknown=spent.unknown > 0,
        )


def _check(request: EpicCreate | EpicUpdate) -> None:
    if request.title is not None and not request.title.strip():
        raise Rejected("bad_request", "an epic needs a title", field="title")
    for field, text in (("title", request.title), ("description", request.description)):
        if text is not None and len(text) > TITLE_CHARS_MAX:
            raise Rejected("too_large", f"{field} is too long", field=field, max=TITLE_CHARS_MAX, requested=len(text))
    for field, amount in (("budget_usd_micros", request.budget_usd_micros), ("budget_tokens", request.budget_tokens)):
        if amount is not None and amount < 0:
            raise Rejected("bad_request", f"{field} is below zero", field=field, min=0, requested=amount)
