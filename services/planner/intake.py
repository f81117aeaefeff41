"""What a task must look like to be accepted: each field within its bounds, roles by their own names."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import (
    ATTEMPTS_PER_TASK_MAX,
    COMPLEXITY_MAX,
    DEPENDENCIES_PER_TASK_MAX,
    GOAL_CHARS_MAX,
    TASK_DEPTH_MAX,
    TASK_TIMEOUT_MAX_MS,
    TASKS_PER_RUN_MAX,
    TITLE_CHARS_MAX,
)
from contracts.release import check_release
from contracts.subjects import check_id
from contracts.task import ROLE_ALIASES, ROLES, TaskSpec
from services.planner.nodes import accept_node

TASK_BYTES_MAX: Final = 2 << 20
PRIORITY_MAX: Final = 1_000_000
_ENCODE: Final = msgspec.json.Encoder(order="deterministic").encode


def accept_tasks(tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """The tasks of a person, with roles put right. Raises Rejected for the first that is not acceptable."""
    if not tasks:
        raise Rejected("bad_request", "there is no task to enqueue", field="tasks")
    if len(tasks) > TASKS_PER_RUN_MAX:
        raise Rejected("too_large", f"more than {TASKS_PER_RUN_MAX} tasks", max=TASKS_PER_RUN_MAX, requested=len(tasks))
    for task in tasks:
        _check_complexity(task)
    return [accept_task(task) for task in tasks]


def _check_complexity(task: TaskSpec) -> None:
    """What people say is taken as it stands or refused; only what a strategy says is put right."""
    if not 0 <= task.estimated_complexity <= COMPLEXITY_MAX:
        raise Rejected(
            "bad_request",
            f"task {task.id[:64]}: estimated_complexity must be 0 to {COMPLEXITY_MAX:g}",
            task_id=task.id[:64],
            field="estimated_complexity",
            max=COMPLEXITY_MAX,
            requested=task.estimated_complexity,
        )


def accept_task(task: TaskSpec) -> TaskSpec:
    """One task as it will be stored: complexity within 0..COMPLEXITY_MAX, the role one of ROLES."""
    check_id(task.id, "task id")
    _check_numbers(task)
    _check_sizes(task)
    accept_node(task)
    check_release(task)
    role = accept_role(task.role, task.id)
    complexity = clamp_complexity(task.estimated_complexity, task.id)
    if role == task.role and complexity == task.estimated_complexity:
        return task
    return msgspec.structs.replace(task, role=role, estimated_complexity=complexity)


def accept_role(role: str, task_id: str) -> str:
    """The role whose rights `role` has. Raises Rejected("unknown_role")."""
    known = ROLE_ALIASES.get(role, role)
    if known not in ROLES:
        raise Rejected("unknown_role", f"task {task_id}: no role {role[:64]!r}", task_id=task_id, role=role[:64])
    return known


def clamp_complexity(value: float, task_id: str) -> float:
    """`value` within 0..COMPLEXITY_MAX. Raises Rejected("bad_request") for what is no number."""
    if not math.isfinite(value):
        raise Rejected(
            "bad_request",
            f"task {task_id}: estimated_complexity is no number",
            task_id=task_id,
            field="estimated_complexity",
        )
    return min(max(value, 0.0), COMPLEXITY_MAX)


def body_digest(task: TaskSpec) -> int:
    """Tells bodies apart; the same for a task that is enqueued again, with or without its defaults written out."""
    node = (type(task.node).__name__, msgspec.structs.astuple(task.node))
    content = tuple(node if value is task.node else value for value in msgspec.structs.astuple(task))
    return int.from_bytes(blake2b(_ENCODE(content), digest_size=8).digest())


def encoded_bytes(task: TaskSpec) -> int:
    """How many bytes the task takes in an event."""
    return len(_ENCODE(task))


def _check_numbers(task: TaskSpec) -> None:
    bounds: tuple[tuple[str, int | None, int, int], ...] = (
        ("priority", task.priority, -PRIORITY_MAX, PRIORITY_MAX),
        ("depth", task.depth, 0, TASK_DEPTH_MAX),
        ("max_attempts", task.max_attempts, 1, ATTEMPTS_PER_TASK_MAX),
        ("timeout_ms", task.timeout_ms, 1, TASK_TIMEOUT_MAX_MS),
        ("budget_usd_micros", task.budget_usd_micros, 0, 1 << 53),
        ("budget_tokens", task.budget_tokens, 0, 1 << 53),
    )
    for field, value, low, high in bounds:
        if value is not None and not low <= value <= high:
            raise Rejected(
                "bad_request",
                f"task {task.id}: {field} must be {low} to {high}",
                task_id=task.id,
                field=field,
                min=low,
                max=high,
                requested=value,
            )


def _check_sizes(task: TaskSpec) -> None:
    for field, text, most in (
        ("title", task.title, TITLE_CHARS_MAX),
        ("description", task.description, GOAL_CHARS_MAX),
    ):
        if len(text) > most:
            raise Rejected(
                "too_large", f"task {task.id}: the {field} is too long", task_id=task.id, field=field, max=most,
                requested=len(text),
            )  # fmt: skip
    if len(task.depends_on) > DEPENDENCIES_PER_TASK_MAX:
        raise Rejected(
            "too_large",
            f"task {task.id}: too many dependencies",
            task_id=task.id,
            field="depends_on",
            max=DEPENDENCIES_PER_TASK_MAX,
            requested=len(task.depends_on),
        )
    size = encoded_bytes(task)
    if size > TASK_BYTES_MAX:
        raise Rejected("too_large", f"task {task.id} is too large", task_id=task.id, max=TASK_BYTES_MAX, requested=size)
