"""The run aggregate: its commands (mailbox messages), its events and what queries answer.

Times ending in `_at_ms` are UTC epoch milliseconds. `attempt` counts from 1. `step` names one effect inside an
attempt: `llm-<n>` (`llm-<n>.<round>` once its tools have answered), `spawn`, `orchestrate`, `complete` or `body`.
"""

from typing import Any, Literal

import msgspec

from contracts.approval import TakeApproval
from contracts.limits import PARALLEL_DEFAULT, REWORKS_PER_TASK_MAX, RUN_TIMEOUT_DEFAULT_MS
from contracts.llm import OutputRef, Usage, shown
from contracts.run_calls import LlmAnswered as LlmAnswered  # noqa: PLC0414  it is one of the events of a run
from contracts.run_calls import LlmAwaited as LlmAwaited  # noqa: PLC0414  it is one of the events of a run
from contracts.run_calls import LlmRequested as LlmRequested  # noqa: PLC0414  it is one of the events of a run
from contracts.run_calls import LlmSettled as LlmSettled  # noqa: PLC0414  it is one of the events of a run
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.run_tools import TakeToolResult, ToolAnswered, ToolRequested
from contracts.taint import Reading
from contracts.task import RunState, TaskSpec, TaskState


class RunOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run is carried out, in which `workspace`; `model` and the like override strategy; budgets hold calls."""

    stream: bool = False
    parallel: int = PARALLEL_DEFAULT
    fail_fast: bool = False
    timeout_ms: int = RUN_TIMEOUT_DEFAULT_MS
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    llm_timeout_ms: int | None = None
    reworks_max: int = REWORKS_PER_TASK_MAX
    evolve: bool = False
    use_rag: bool = False
    use_quality_templates: bool = False
    integrate_sparc: bool = False
    safe_planning: bool = False
    workspace: str | None = None
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None
    allow_unpriced: bool = False


# Commands: bodies of `htdag.v1.cmd.executor.run.<id>.<verb>` ------------------------------------------------------


class StartRun(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.start.v1"):
    """Begin a run; said twice is said once, another plan under the same id is `duplicate_id`.
    `strategy` is `name@version`, fixed until the run is at rest; None means the fallback (models by complexity)."""

    run_id: str
    goal: str = ""
    epic_id: str | None = None
    tasks: list[TaskSpec] = []
    options: RunOptions = RunOptions()
    strategy: str | None = None
    open: bool = False


class AddTasks(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.add.v1"):
    """Add tasks to an open run, creating it when it is not there; accepted whole or refused whole."""

    run_id: str
    tasks: list[TaskSpec]
    epic_id: str | None = None
    options: RunOptions = RunOptions()
    strategy: str | None = None


class CancelRun(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.cancel.v1"):
    """Stop a run, or one task, and what waits for it. `aimed_at`: 1 + how often the run had ended by then; 0: any."""

    reason: str = ""
    task_id: str | None = None
    aimed_at: int = 0


class ResumeRun(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.resume.v1"):
    """Try again what failed, was blocked or was cancelled; a running run is only woken. `aimed_at` as in CancelRun."""

    reason: str = ""
    aimed_at: int = 0


class TakeAnswer(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.answer.v1"):
    """An LLM answer for one step of a task. Exactly one of `output` and `error` counts.

    An error has `usage` when its provider had begun to answer: that is paid. `cached` is free.
    """

    corr_id: str
    output: str = ""
    tool_calls: list[Any] = []
    model_used: str = ""
    usage: Usage | None = None
    cost_usd_micros: int | None = None
    finish_reason: str = ""
    latency_ms: float = 0.0
    error: dict[str, Any] | None = None
    output_ref: OutputRef | None = None
    cached: bool = False


class TakeResult(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.result.v1"):
    """The outcome of a body or of a Lua stage that the executor itself carried out."""

    task_id: str
    attempt: int
    step: str
    value: Any = None
    error: dict[str, Any] | None = None
    duration_ms: float = 0.0


class TakeTime(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.time.v1"):
    """Time has passed: judge every deadline and every retry that is due. `llm_alive` is false when no worker beats."""

    llm_alive: bool = True


RunCommand = (
    StartRun | AddTasks | CancelRun | ResumeRun | TakeAnswer | TakeApproval | TakeResult | TakeToolResult | TakeTime
)


# Events --------------------------------------------------------------------------------------------------------


class RunCreated(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.created.v1"):
    """A run began. `plan_digest` identifies the tasks it was started with."""

    run_id: str
    deadline_at_ms: int
    goal: str = ""
    epic_id: str | None = None
    options: RunOptions = RunOptions()
    strategy: str | None = None
    open: bool = False
    plan_digest: str = ""


class TasksAdded(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tasks.added.v1"):
    """Tasks joined the graph; a big graph comes as several of these in one commit or chain."""

    tasks: list[TaskSpec]


class TaskStarted(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="type", tag="task.started.v1"):
    """An attempt began; it is acknowledged before its body runs."""

    task_id: str
    attempt: int
    deadline_at_ms: int


class TaskCompleted(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.completed.v1"):
    """A task ended well, with its result."""

    task_id: str
    attempt: int
    result: Any = None


class TaskFailed(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.failed.v1"):
    """A task ended badly, for good."""

    task_id: str
    attempt: int
    error: dict[str, Any]


class TaskRetryScheduled(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.retry_scheduled.v1"
):
    """An attempt failed; the next one begins at `due_at_ms`."""

    task_id: str
    attempt: int
    due_at_ms: int
    error: dict[str, Any]


class TaskBlocked(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.blocked.v1"):
    """A task will never start, because `blocked_by` did not complete."""

    task_id: str
    blocked_by: str


class TaskCancelled(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.cancelled.v1"):
    """A task was stopped by wish or because its run ended."""

    task_id: str
    reason: str = ""


class TaskReset(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.reset.v1"):
    """A task that had ended badly is pending again (resume)."""

    task_id: str


class AgentsSpawned(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.agents_spawned.v1"):
    """Who works on this attempt. `strategy` is None and `fallback` true when no strategy matched."""

    task_id: str
    attempt: int
    agents: list[dict[str, Any]]
    pattern: str
    strategy: str | None = shown(None)
    fallback: bool = False
    duration_ms: float = 0.0


class Orchestrated(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.orchestrated.v1"):
    """In which order the agents work: `steps` are `{"agent": index, "after": [indexes], "instruction": …}`."""

    task_id: str
    attempt: int
    steps: list[dict[str, Any]]
    strategy: str | None = None
    duration_ms: float = 0.0


class TaskJudged(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.judged.v1"):
    """The completion gate spoke: completed, needs_rework or in_progress."""

    task_id: str
    attempt: int
    status: str
    confidence: float = 0.0
    reasoning: str = ""
    required_fixes: list[str] = []
    strategy: str | None = None
    duration_ms: float = 0.0


class TaskReworked(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="task.reworked.v1"):
    """The gate's fixes go back to the agents; `rework` counts from 1."""

    task_id: str
    attempt: int
    rework: int
    fixes: list[str]


class RunCancelRequested(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.cancel_requested.v1"
):
    """Somebody wished the run to end."""

    reason: str = ""


class RunResumed(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.resumed.v1"):
    """The run goes on, with a new deadline; with another `strategy` (`none`: without one) if it was at rest."""

    deadline_at_ms: int
    reason: str = ""
    strategy: str | None = None


class RunEnded(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="run.ended.v1"):
    """The run is over: completed, failed or cancelled. `digest` is that of the state it ended in."""

    status: Literal["completed", "failed", "cancelled"]
    counts: dict[str, int]
    digest: str
    error: dict[str, Any] | None = None


RunEvent = (
    RunCreated
    | TasksAdded
    | TaskApprovalRequested
    | TaskApproved
    | TaskStarted
    | TaskCompleted
    | TaskFailed
    | TaskRetryScheduled
    | TaskBlocked
    | TaskCancelled
    | TaskReset
    | AgentsSpawned
    | Orchestrated
    | LlmRequested
    | LlmAwaited
    | LlmAnswered
    | LlmSettled
    | ToolRequested
    | ToolAnswered
    | TaskJudged
    | TaskReworked
    | RunCancelRequested
    | RunResumed
    | RunEnded
)


# What queries answer ----------------------------------------------------------------------------------------------
class RunSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run in a list."""

    run_id: str
    status: RunState
    goal: str = ""
    epic_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    tokens: int = 0
    cost_usd_micros: int = 0
    cost_unknown: bool = False
    last_at: str = ""


class TaskView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task of a run, as it stands now.

    `read` is what it read itself from outside of the run, `tainted_by` names the tasks before it that did; at least so
    many more as stand beside them are not told. A task with neither is not tainted.
    """

    id: str
    status: TaskState
    attempt: int = 0
    title: str = ""
    role: str = ""
    parent: str | None = None
    depends_on: list[str] = []
    sparc_phase: str | None = None
    estimated_complexity: float = 0.0
    blocked_by: str | None = None
    error: dict[str, Any] | None = None
    reworks: int = 0
    tokens: int = 0
    cost_usd_micros: int = 0
    cost_unknown: bool = False
    models: list[str] = []
    tool_calls: int = 0
    approval_id: str | None = None
    read: list[Reading] = []
    read_more: int = 0
    tainted_by: list[str] = []
    tainted_more: int = 0


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something a run waits for, and until when. Nothing waits without a deadline."""

    run_id: str
    task_id: str
    kind: str
    deadline_at_ms: int


class RunView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run as it stands now, with its tasks."""

    run_id: str
    status: RunState
    goal: str = ""
    epic_id: str | None = None
    strategy: str | None = None
    options: RunOptions = RunOptions()
    deadline_at_ms: int = 0
    counts: dict[str, int] = {}
    tasks: list[TaskView] = []
    waits: list[Wait] = []
    tokens: int = 0
    cost_usd_micros: int = 0
    cost_unknown: bool = False
    error: dict[str, Any] | None = None
    digest: str = ""
    last_seq: int = 0
