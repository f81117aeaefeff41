"""An epic as its events tell it. It keeps what later decisions need, not the plans: those stay in the log."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import msgspec

from contracts.epic import EpicCreated, EpicEvent, EpicUpdated, GoalPlanned, TasksEnqueued
from contracts.subjects import EPIC_RUN_PREFIX
from services.planner.intake import body_digest

EPIC_IN_RUN_CHARS_MAX: Final = 59


@dataclass(slots=True)
class Epic:
    """An epic. `goals` maps a run to the digest of its goal, `bodies` an enqueued task to the digest of its body."""

    epic_id: str
    created: EpicCreated | None = None
    """As it is now."""
    founded: EpicCreated | None = None
    """As it was wished at first."""
    goals: dict[str, int] = field(default_factory=dict)
    bodies: dict[str, int] = field(default_factory=dict)
    newest_task: str = ""
    newest_strategy: str | None = None
    """What was enqueued last, and the strategy chosen for it: the executor may not have it yet."""

    @property
    def run_id(self) -> str:
        """The open run that carries out what is enqueued into this epic."""
        return open_run_of(self.epic_id)

    def runs(self) -> list[str]:
        """Every run of this epic, oldest first; the open one last."""
        return [*self.goals, *((self.run_id,) if self.bodies else ())]


def open_run_of(epic_id: str) -> str:
    """The id of an epic's open run. An epic id may be as long as a run id, so a long one is told by its digest."""
    if len(epic_id) <= EPIC_IN_RUN_CHARS_MAX:
        return f"{EPIC_RUN_PREFIX}{epic_id}"
    return f"{EPIC_RUN_PREFIX}{epic_id[:42]}-{blake2b(epic_id.encode(), digest_size=8).hexdigest()}"


def goal_digest(goal: str) -> int:
    """Tells goals apart."""
    return int.from_bytes(blake2b(goal.encode(), digest_size=8).digest())


def evolve(state: Epic, event: EpicEvent) -> Epic:
    """Take a fact in."""
    match event:
        case EpicCreated():
            state.created = state.founded = event
        case EpicUpdated():
            if state.created is not None:
                state.created = msgspec.structs.replace(
                    state.created,
                    title=event.title,
                    description=event.description,
                    priority=event.priority,
                    budget_usd_micros=event.budget_usd_micros,
                    budget_tokens=event.budget_tokens,
                )
        case GoalPlanned():
            state.goals[event.run_id] = goal_digest(event.goal)
        case TasksEnqueued():
            for task in event.tasks:
                state.bodies[task.id] = body_digest(task)
            state.newest_task, state.newest_strategy = event.tasks[-1].id, event.strategy
    return state
