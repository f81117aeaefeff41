"""Bodies of the request verbs. Unknown fields are ignored; a missing or wrong one is `bad_request` naming it."""

from typing import Any

import msgspec

from contracts.run import RunOptions
from contracts.task import TaskSpec

# planner: goals, epics, tasks ---------------------------------------------------------------------------------------


class GoalSubmit(msgspec.Struct, frozen=True, omit_defaults=True):
    """Decompose a goal and, unless `plan_only`, run it. The same `run_id` again attaches to the run that is there.

    Without `strategy` the active one that matches the goal decides; `none` means none at all.
    """

    goal: str
    run_id: str | None = None
    epic_id: str | None = None
    strategy: str | None = None
    complexity: float | None = None
    plan_only: bool = False
    options: RunOptions = RunOptions()


class EpicCreate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Create an epic; an id is given when none is."""

    title: str
    epic_id: str | None = None
    description: str = ""
    priority: int = 5
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None


class EpicUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Change an epic; what is left out stays. A raised budget holds for the next LLM call of its runs."""

    epic_id: str
    title: str | None = None
    description: str | None = None
    priority: int | None = None
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None


class EpicRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One epic."""

    epic_id: str


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of a list: newest first, at most `limit`, behind `after` (an id) when given."""

    limit: int = 50
    after: str | None = None


class TaskEnqueue(msgspec.Struct, frozen=True, omit_defaults=True):
    """Enqueue `task`, or `tasks` (whole or not at all), into an epic; the default epic is `default`."""

    task: TaskSpec | None = None
    tasks: list[TaskSpec] | None = None
    epic_id: str = "default"
    strategy: str | None = None
    options: RunOptions = RunOptions()


class TaskRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task; without `run_id` it is looked for in the epic's run (default epic `default`)."""

    task_id: str
    run_id: str | None = None
    epic_id: str | None = None


class GraphRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """The graph of a run, or of an epic's run."""

    run_id: str | None = None
    epic_id: str | None = None


# planner: strategies ------------------------------------------------------------------------------------------------


class StrategyPutRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Store a new version and activate it. Scripts that are left out are taken from the version before."""

    name: str
    scripts: dict[str, str] = {}
    pattern: str | None = None
    priority: int | None = None
    description: str | None = None


class StrategyRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A strategy, at its active version when none is given."""

    name: str
    version: int | None = None


class StrategyChoose(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ask which active strategy matches any of `texts`: the highest priority wins, then the name."""

    texts: list[str]


class StrategyTry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Run one stage for one task, without effect: `stage` is decompose, spawn, orchestrate or complete.

    `context` is merged over `{"task": task}`; the completion stage reads execution_results, tests and code_quality.
    """

    name: str
    stage: str
    task: dict[str, Any] = {}
    context: dict[str, Any] = {}
    version: int | None = None


class Nothing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request without a body."""


# executor: runs -----------------------------------------------------------------------------------------------------


class RunStart(msgspec.Struct, frozen=True, omit_defaults=True):
    """Start a run of `tasks` as they stand. An id is given when none is; the same id and plan again attaches.

    Without `strategy` a plan that has agents gets the active one that matches its goal, else any of its agents' tasks;
    `none` means none at all: then the executor's fallback spawns the agents.
    """

    tasks: list[TaskSpec]
    run_id: str | None = None
    goal: str = ""
    epic_id: str | None = None
    strategy: str | None = None
    options: RunOptions = RunOptions()
    open: bool = False


class RunRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run."""

    run_id: str


class RunCancel(msgspec.Struct, frozen=True, omit_defaults=True):
    """Cancel a run, or one task of it."""

    run_id: str
    task_id: str | None = None
    reason: str = ""


class RunWaits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Open waits of one run, or of all runs."""

    run_id: str | None = None


# llm-worker ---------------------------------------------------------------------------------------------------------


class ModelRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model, by its id or an alias."""

    model_id: str


class CorrRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One paid call."""

    corr_id: str
    run_id: str | None = None
    node_id: str | None = None


class ReplayRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One paid call, to be shown again; with `live`, to be made and paid once more under an id of its own."""

    corr_id: str
    run_id: str | None = None
    node_id: str | None = None
    live: bool = False


class RepeatRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One paid call, to be made and paid once more. `mark` names the new one: the same mark again is the same call."""

    corr_id: str
    mark: str
    run_id: str | None = None
    node_id: str | None = None


class TokensRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """The token stream of a node, from a number on."""

    run_id: str
    node_id: str
    from_seq: int = 1
