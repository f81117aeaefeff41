"""The epic aggregate: a goal that people and agents work on, and the tasks enqueued under it."""

from typing import Any, Final

import msgspec

from contracts.task import TaskSpec

DEFAULT_EPIC: Final = "default"
"""The epic of everything that names none; it comes into being with its first goal or task."""


class EpicCreated(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="epic.created.v1"):
    """An epic began. `created_by` is the principal that wished it."""

    epic_id: str
    title: str
    description: str = ""
    priority: int = 5
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None
    created_by: str = ""
    created_at_ms: int = 0


class EpicUpdated(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="epic.updated.v1"):
    """An epic was changed; this is the whole of what can be changed, as it is now."""

    title: str
    description: str = ""
    priority: int = 5
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None


class GoalPlanned(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="goal.planned.v1"):
    """A goal was decomposed into the tasks of one run."""

    run_id: str
    goal: str
    strategy: str | None
    tasks: list[TaskSpec]
    options: dict[str, Any] = {}
    reasoning: str = ""


class TasksEnqueued(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tasks.enqueued.v1"):
    """Tasks were accepted, whole, and handed to the epic's run; a big batch is several of these in one commit.

    `strategy` and `options` count when these are the first tasks of the run.
    """

    run_id: str
    tasks: list[TaskSpec]
    strategy: str | None = None
    options: dict[str, Any] = {}


EpicEvent = EpicCreated | EpicUpdated | GoalPlanned | TasksEnqueued


class EpicView(msgspec.Struct, frozen=True, omit_defaults=True):
    """An epic as it stands now. `created_by` is for the audit only: everybody sees everything."""

    epic_id: str
    title: str
    description: str = ""
    priority: int = 5
    created_by: str = ""
    created_at: str = ""
    runs: list[str] = []
    total: int = 0
    completed: int = 0
    failed: int = 0
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None
    spent_usd_micros: int = 0
    spent_tokens: int = 0
    cost_unknown: bool = False


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A goal decomposed, before or without being run."""

    goal: str
    strategy: str | None
    reasoning: str
    depth: int
    tasks: list[TaskSpec]
    run_id: str | None = None
    epic_id: str | None = None
