"""The live picture of one run: a pure projection of its events and of the tokens that come by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from contracts import run as events
from contracts import run_gates, run_tools
from contracts.commit import Commit
from contracts.run import RunEvent
from contracts.task import RUN_STATES_FINAL, TASK_STATES_FINAL, GroupNode, TaskSpec
from services.console.tool_text import call_text, outcome_text

TAIL_CHARS_MAX: Final = 400
"""How much of a task's streamed text is kept for the screen."""


@dataclass(slots=True)
class TaskLine:
    """A task as the board shows it. Times are UTC epoch milliseconds, 0 when they have not come yet."""

    id: str
    title: str
    parent: str | None
    depends_on: list[str]
    phase: str | None
    complexity: float
    group: bool
    status: str = "pending"
    attempt: int = 0
    reworks: int = 0
    started_at_ms: int = 0
    ended_at_ms: int = 0
    tokens: int = 0
    cost_usd_micros: int = 0
    cost_unknown: bool = False
    models: list[str] = field(default_factory=list)
    blocked_by: str | None = None
    error: dict[str, Any] | None = None
    tail: str = ""
    chunks: int = 0
    """Pieces of the answer that is being streamed now."""
    children: list[str] = field(default_factory=list)
    tool_calls: int = 0
    asked: dict[int, str] = field(default_factory=dict)
    """Tool calls of this attempt that have not ended, by their number."""
    gate: str = ""
    """The gate that a human must release, while it waits."""
    tool_said: str = ""
    """The tool call that ended last, and how."""


@dataclass(slots=True)
class Board:
    """A run as the board shows it. `nodes` maps the node id of an LLM call to its task."""

    run_id: str
    status: str = "pending"
    goal: str = ""
    strategy: str | None = None
    tasks: dict[str, TaskLine] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    started_at_ms: int = 0
    ended_at_ms: int = 0
    events: int = 0
    llm_calls: int = 0
    unsettled: set[str] = field(default_factory=set)
    """Calls that are not over; they may go on a moment longer than the run."""
    tool_calls: int = 0
    tokens: int = 0
    cost_usd_micros: int = 0
    cost_unknown: bool = False
    error: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    """How many tasks are in each state; kept up to date, so that a big run costs nothing to draw."""

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.status in RUN_STATES_FINAL

    def elapsed_s(self, now_ms: int) -> float:
        """Seconds from the start to the end, or to `now_ms` while it runs."""
        if not self.started_at_ms:
            return 0.0
        return max(0, (self.ended_at_ms or now_ms) - self.started_at_ms) / 1000


def at_ms(rfc3339: str) -> int:
    """The `at` of a commit as UTC epoch milliseconds; 0 when it cannot be read."""
    try:
        return int(datetime.fromisoformat(rfc3339).timestamp() * 1000)
    except ValueError:
        return 0


def take_commit(board: Board, commit: Commit[RunEvent]) -> None:
    """Take in all events of a commit."""
    now_ms = at_ms(commit.at)
    for event in commit.events:
        take(board, event, now_ms)


def take(board: Board, event: RunEvent, now_ms: int) -> None:
    """Take one event in. Unknown tasks and unknown types change nothing: a view may skip, it never fails."""
    board.events += 1
    taker = _TAKERS.get(type(event))
    if taker is not None:
        taker(board, event, now_ms)


def take_chunk(board: Board, node_id: str, chunk: str) -> str | None:
    """Take a streamed chunk in; the task it belongs to, None when that is not known."""
    task = board.tasks.get(board.nodes.get(node_id, node_id))
    if task is None:
        return None
    task.tail = (task.tail + chunk)[-TAIL_CHARS_MAX:]
    task.chunks += 1
    return task.id


def _created(board: Board, event: events.RunCreated, now_ms: int) -> None:
    board.status, board.goal, board.strategy = "running", event.goal, event.strategy
    board.started_at_ms = now_ms


def _added(board: Board, event: events.TasksAdded, _: int) -> None:
    for spec in event.tasks:
        line = _line(spec)
        board.tasks[spec.id] = line
        board.counts["pending"] = board.counts.get("pending", 0) + 1
    for spec in event.tasks:
        if spec.parent in board.tasks:
            board.tasks[spec.parent].children.append(spec.id)


def _line(spec: TaskSpec) -> TaskLine:
    return TaskLine(
        id=spec.id,
        title=spec.title or spec.description,
        parent=spec.parent,
        depends_on=list(spec.depends_on),
        phase=spec.sparc_phase,
        complexity=spec.estimated_complexity,
        group=isinstance(spec.node, GroupNode),
    )


def _move(board: Board, task_id: str, status: str, now_ms: int) -> TaskLine | None:
    task = board.tasks.get(task_id)
    if task is None:
        return None
    board.counts[task.status] = board.counts.get(task.status, 0) - 1
    board.counts[status] = board.counts.get(status, 0) + 1
    task.status = status
    if status in TASK_STATES_FINAL:
        task.ended_at_ms, task.tail = now_ms, ""
    task.asked.clear()
    task.gate = ""
    return task


def _started(board: Board, event: events.TaskStarted, now_ms: int) -> None:
    task = _move(board, event.task_id, "in_progress", now_ms)
    if task is not None:
        task.attempt, task.tail = event.attempt, ""
        task.started_at_ms = task.started_at_ms or now_ms


def _approval_requested(board: Board, event: run_gates.TaskApprovalRequested, now_ms: int) -> None:
    task = _move(board, event.task_id, "waiting_approval", now_ms)
    if task is not None:
        task.attempt, task.gate = event.attempt, event.gate_id


def _approved(board: Board, event: run_gates.TaskApproved, now_ms: int) -> None:
    _move(board, event.task_id, "pending", now_ms)


def _completed(board: Board, event: events.TaskCompleted, now_ms: int) -> None:
    task = _move(board, event.task_id, "completed", now_ms)
    if task is not None:
        task.error = None


def _failed(board: Board, event: events.TaskFailed, now_ms: int) -> None:
    task = _move(board, event.task_id, "failed", now_ms)
    if task is not None:
        task.error = event.error


def _retry(board: Board, event: events.TaskRetryScheduled, now_ms: int) -> None:
    task = _move(board, event.task_id, "pending", now_ms)
    if task is not None:
        task.error = event.error


def _blocked(board: Board, event: events.TaskBlocked, now_ms: int) -> None:
    task = _move(board, event.task_id, "blocked", now_ms)
    if task is not None:
        task.blocked_by = event.blocked_by


def _cancelled(board: Board, event: events.TaskCancelled, now_ms: int) -> None:
    _move(board, event.task_id, "cancelled", now_ms)


def _reset(board: Board, event: events.TaskReset, now_ms: int) -> None:
    task = _move(board, event.task_id, "pending", now_ms)
    if task is not None:
        task.error, task.blocked_by, task.ended_at_ms = None, None, 0


def _requested(board: Board, event: events.LlmRequested, _: int) -> None:
    board.llm_calls += 1
    board.unsettled.add(event.request.corr_id)
    board.nodes[event.request.node_id or event.task_id] = event.task_id
    task = board.tasks.get(event.task_id)
    if task is not None:
        task.tail, task.chunks = "", 0


def _answered(board: Board, event: events.LlmAnswered, _: int) -> None:
    board.unsettled.discard(event.corr_id)
    _spend(board, event)


def _spend(board: Board, event: events.LlmAnswered | events.LlmSettled) -> None:
    used = event.usage.total_tokens if event.paid and event.usage else 0
    paid = (event.cost_usd_micros or 0) if event.paid else 0
    unknown = event.paid and event.cost_usd_micros is None
    if not event.paid:
        board.llm_calls -= 1  # it was refused, stopped, recorded, or failed unheard: no model made anything of it
    board.tokens += used
    board.cost_usd_micros += paid
    board.cost_unknown |= unknown
    task = board.tasks.get(event.task_id)
    if task is None:
        return
    task.tokens += used
    task.cost_usd_micros += paid
    task.cost_unknown |= unknown
    if event.model_used and event.model_used not in task.models:
        task.models.append(event.model_used)


def _settled(board: Board, event: events.LlmSettled, _: int) -> None:
    board.unsettled.discard(event.corr_id)
    _spend(board, event)


def _tool_requested(board: Board, event: run_tools.ToolRequested, _: int) -> None:
    board.tool_calls += 1
    task = board.tasks.get(event.task_id)
    if task is not None:
        task.tool_calls += 1
        task.asked[event.call] = call_text(event.tool, event.args)


def _tool_answered(board: Board, event: run_tools.ToolAnswered, _: int) -> None:
    task = board.tasks.get(event.task_id)
    if task is not None:
        called = task.asked.pop(event.call, f"call {event.call}")
        task.tool_said = f"{called} {outcome_text(event.value, event.error, truncated=event.truncated)}"


def _reworked(board: Board, event: events.TaskReworked, _: int) -> None:
    task = board.tasks.get(event.task_id)
    if task is not None:
        task.reworks, task.tail = event.rework, ""


def _resumed(board: Board, event: events.RunResumed, _: int) -> None:
    board.status, board.ended_at_ms, board.error = "running", 0, None
    board.strategy = event.strategy or board.strategy


def _ended(board: Board, event: events.RunEnded, now_ms: int) -> None:
    board.status, board.ended_at_ms, board.error = event.status, now_ms, event.error


_TAKERS: Final[Mapping[type, Callable[[Board, Any, int], None]]] = {
    events.RunCreated: _created,
    events.TasksAdded: _added,
    run_gates.TaskApprovalRequested: _approval_requested,
    run_gates.TaskApproved: _approved,
    events.TaskStarted: _started,
    events.TaskCompleted: _completed,
    events.TaskFailed: _failed,
    events.TaskRetryScheduled: _retry,
    events.TaskBlocked: _blocked,
    events.TaskCancelled: _cancelled,
    events.TaskReset: _reset,
    events.LlmRequested: _requested,
    events.LlmAnswered: _answered,
    events.LlmSettled: _settled,
    run_tools.ToolRequested: _tool_requested,
    run_tools.ToolAnswered: _tool_answered,
    events.TaskReworked: _reworked,
    events.RunResumed: _resumed,
    events.RunEnded: _ended,
}
