"""The board in words: one line per event, a tree for people, and the line that ends a run."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from contracts import run as events
from contracts.action_text import visible
from contracts.run import RunEvent
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.run_tools import ToolAnswered
from services.console.output import duration, money
from services.console.run_board import Board, TaskLine
from services.console.tool_text import SIGN

ICONS: Final = {
    "pending": "○",
    "in_progress": "●",
    "waiting_approval": "⏸",
    "blocked": "⊘",
    "completed": "✔",
    "failed": "✖",
    "cancelled": "⊗",
}
COLOURS: Final = {
    "pending": "dim",
    "in_progress": "cyan",
    "waiting_approval": "yellow",
    "blocked": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "interrupted": "yellow",
}
TITLE_CHARS_MAX: Final = 60
_ERROR_CHARS_MAX: Final = 160


def describe(board: Board, event: RunEvent) -> str | None:
    """One line for an event that was just taken in; None for what only machines care about."""
    match event:
        case events.RunCreated():
            return f"run {board.run_id} running" + (f"  strategy {event.strategy}" if event.strategy else "")
        case events.TasksAdded():
            return f"run {board.run_id} tasks +{len(event.tasks)}"
        case TaskApprovalRequested():
            return f"task {event.task_id} waiting_approval  {release(event.gate_id)}"
        case TaskApproved():
            return f"task {event.task_id} approved by {event.user}"
        case events.TaskStarted():
            again = f"  attempt {event.attempt}" if event.attempt > 1 else ""
            return f"task {event.task_id} in_progress{again}"
        case events.TaskCompleted() | events.TaskFailed() | events.TaskBlocked() | events.TaskCancelled():
            return _ending(board, event.task_id)
        case events.TaskRetryScheduled():
            return f"task {event.task_id} retry after attempt {event.attempt}  {error_text(event.error)}"
        case events.TaskJudged():
            why = f"  {shorten(event.reasoning, _ERROR_CHARS_MAX)}" if event.reasoning else ""
            return f"task {event.task_id} judged {event.status} {event.confidence:.2f}{why}"
        case events.TaskReworked():
            return f"task {event.task_id} rework {event.rework}  {shorten('; '.join(event.fixes), _ERROR_CHARS_MAX)}"
        case ToolAnswered():
            task = board.tasks.get(event.task_id)
            return None if task is None else f"{event.task_id}  {SIGN} {task.tool_said}"
        case events.TaskReset():
            return f"task {event.task_id} pending  again"
        case events.RunCancelRequested() | events.RunResumed():
            word = "cancel requested" if isinstance(event, events.RunCancelRequested) else "resumed"
            return f"run {board.run_id} {word}" + (
                f"  {shorten(event.reason, _ERROR_CHARS_MAX)}" if event.reason else ""
            )
        case events.RunEnded():
            return f"run {board.run_id} {event.status}" + (f"  {error_text(event.error)}" if event.error else "")
        case _:
            return None


def _ending(board: Board, task_id: str) -> str:
    task = board.tasks.get(task_id)
    return f"task {task_id} ended" if task is None else f"task {task_id} {task.status}{facts(task, task.ended_at_ms)}"


def facts(task: TaskLine, now_ms: int) -> str:
    """What is known of a task beside its state: time, tokens, cost, model, reworks, error."""
    words: list[str] = []
    if task.started_at_ms and now_ms:
        words.append(duration(max(0, (task.ended_at_ms or now_ms) - task.started_at_ms) / 1000))
    if task.gate:
        words.append(release(task.gate))
    if task.chunks and task.status == "in_progress":
        words.append(f"streaming {task.chunks}")
    if task.tool_calls:
        words.append(f"{SIGN} {task.tool_calls}")
    if task.tokens:
        words.append(f"{task.tokens} tokens")
    if task.models:
        words.append(money(task.cost_usd_micros, unknown=task.cost_unknown))
        words.append(",".join(task.models))
    if task.attempt > 1:
        words.append(f"attempt {task.attempt}")
    if task.reworks:
        words.append(f"rework {task.reworks}")
    if task.blocked_by:
        words.append(f"blocked by {task.blocked_by}")
    if task.error and task.status != "completed":
        words.append(error_text(task.error))
    return "".join(f"  {word}" for word in words)


def release(gate: str) -> str:
    """What to type to release a gate."""
    return f"htdag approvals grant {gate}"


def error_text(error: dict[str, Any]) -> str:
    """An error of the log in one short line."""
    reason = str(error.get("reason") or "")
    said = f"{error.get('code', 'error')}: {error.get('message', '')}" + (f": {reason}" if reason else "")
    text = visible(" ".join(said.splitlines()))
    hint = visible(" ".join(str(error.get("hint") or "").split()))
    # Some hints only point to the reason, which is told already.
    if hint and not reason and len(text) + len(hint) < _ERROR_CHARS_MAX:
        text = f"{text} ({hint})"
    return text if len(text) <= _ERROR_CHARS_MAX else text[: _ERROR_CHARS_MAX - 1] + "…"


def summary(board: Board, mutations: list[Any] | None = None) -> str:
    """The line that ends a run."""
    done, failed = board.counts.get("completed", 0), board.counts.get("failed", 0)
    others = "".join(
        f"{state} {board.counts[state]}  " for state in ("blocked", "cancelled") if board.counts.get(state)
    )
    return (
        f"completed {done}  failed {failed}  {others}mutations_applied {mutations or []}  "
        f"{f'tools {board.tool_calls}  ' if board.tool_calls else ''}"
        f"tokens {board.tokens}  cost {money(board.cost_usd_micros, unknown=board.cost_unknown)}"
    )


def heading(board: Board, now_ms: int) -> str:
    """The line above the tree."""
    counts = "  ".join(f"{state} {count}" for state, count in board.counts.items() if count)
    strategy = f"  strategy {board.strategy}" if board.strategy else ""
    return f"run {board.run_id}  {board.status}{strategy}  {counts}  {duration(board.elapsed_s(now_ms))}"


def shorten(text: str, limit: int = TITLE_CHARS_MAX) -> str:
    """The first line of `text`, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def tree_order(board: Board) -> Iterator[tuple[int, TaskLine]]:
    """Tasks with their depth: parents before children, otherwise in order of arrival. Iterative: graphs are deep."""
    stack = [(0, task.id) for task in reversed(board.tasks.values()) if task.parent not in board.tasks]
    while stack:
        depth, task_id = stack.pop()
        task = board.tasks[task_id]
        yield depth, task
        stack.extend((depth + 1, child) for child in reversed(task.children))


def task_text(task: TaskLine, now_ms: int, paint: Callable[[str, str], str]) -> str:
    """One task in one line."""
    icon = paint(ICONS.get(task.status, "?"), COLOURS.get(task.status, ""))
    title = shorten(task.title)
    name = f"{task.id}" + (f"  {title}" if title and title != task.id else "")
    after = f"  ← {shorten(', '.join(task.depends_on), 40)}" if task.depends_on else ""
    return f"{icon} {name}  {task.status}{facts(task, now_ms)}{paint(after, 'dim')}"


def tree_text(board: Board, now_ms: int, paint: Callable[[str, str], str], rows_max: int | None = None) -> str:
    """The whole board as text; with `rows_max` only as many tasks, the ones that matter now."""
    lines = [paint(heading(board, now_ms), "bold")]
    if board.goal:
        lines.append(shorten(board.goal, 100))
    rows, hidden = rows_of(board, rows_max)
    for depth, task in rows:
        lines.append("  " * (depth + 1) + task_text(task, now_ms, paint))
        if task.tail and task.status == "in_progress":
            lines.append("  " * (depth + 2) + paint(shorten(task.tail[-100:], 100), "dim"))
        lines += ["  " * (depth + 2) + paint(f"{SIGN} {call} …", "dim") for call in task.asked.values()]
    if hidden:
        lines.append(paint(f"  … and {hidden} more tasks", "dim"))
    if board.error:
        lines.append(paint(error_text(board.error), "red"))
    lines.append(summary(board))
    return "\n".join(lines)


def rows_of(board: Board, rows_max: int | None) -> tuple[list[tuple[int, TaskLine]], int]:
    """The tasks to show, in tree order, and how many are left out: running and failed ones come first."""
    rows = list(tree_order(board))
    if rows_max is None or len(rows) <= rows_max:
        return rows, 0
    weight = {"in_progress": 0, "waiting_approval": 0, "failed": 1, "blocked": 3, "pending": 2}
    chosen = sorted(
        range(len(rows)), key=lambda index: (weight.get(rows[index][1].status, 4), -rows[index][1].ended_at_ms)
    )
    keep = sorted(chosen[:rows_max])
    return [rows[index] for index in keep], len(rows) - len(keep)
