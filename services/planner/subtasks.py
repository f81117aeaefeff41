"""What a decomposition script returns, judged: subtasks as the planner takes them, or a refusal naming the field."""

import math
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import COMPLEXITY_MAX, SUBTASKS_PER_TASK_MAX
from contracts.subjects import ID
from contracts.task import NODE_TYPES, AgentNode, GroupNode, Node, TaskType

DESCRIPTION_CHARS_MAX: Final = 100_000
"""A longer one is no description; one longer than a goal may be is cut to that."""
PHASE_CHARS_MAX: Final = 64
ROLE_OF_PHASE: Final = {
    "specification": "architect",
    "pseudocode": "architect",
    "architecture": "architect",
    "refinement": "coder",
    "completion": "tester",
    "completion_phase": "tester",
}
"""Who works on a SPARC phase when the script does not say."""
_TABLES: Final = ("context", "node")


class Subtask(msgspec.Struct, frozen=True):
    """One subtask as a script gives it; `id` and `dependencies` are local to its siblings."""

    description: str
    id: str = ""
    title: str = ""
    task_type: TaskType = "implementation"
    estimated_complexity: float | None = None
    sparc_phase: str | None = None
    dependencies: list[str] = []
    role: str | None = None
    acceptance_criteria: list[str] = []
    priority: int | None = None
    context: dict[str, Any] = {}
    timeout_ms: int | None = None
    node: Node = AgentNode()


class Subtasks(msgspec.Struct, frozen=True):
    """The answer of one call of the decomposition stage."""

    subtasks: list[Subtask]
    strategy: str = ""
    reasoning: str = ""


def read_subtasks(value: Any, task_id: str) -> Subtasks:
    """Judge what the script returned for `task_id`.

    Raises Rejected: lua_bad_result (shape), bad_id, duplicate_id, unknown_dependency.
    """
    if not isinstance(value, dict):
        raise _bad(task_id, "it must return a table with subtasks, strategy and reasoning")
    items = value.get("subtasks")
    if not isinstance(items, list) or len(items) > SUBTASKS_PER_TASK_MAX:
        raise _bad(task_id, f"subtasks must be a list of at most {SUBTASKS_PER_TASK_MAX}", field="subtasks")
    texts = {key: value[key] for key in ("strategy", "reasoning") if value.get(key) is not None}
    whole = {"subtasks": [_shaped(item, place, task_id) for place, item in enumerate(items, 1)], **texts}
    try:
        result = msgspec.convert(whole, Subtasks)
    except msgspec.ValidationError as error:
        raise _bad(task_id, str(error)) from error
    _check_local(result.subtasks, task_id)
    return result


def _shaped(item: Any, place: int, task_id: str) -> dict[str, Any]:
    """Lua has one empty table for lists and maps, which comes as `[]`, and no null: a missing field is the default."""
    if not isinstance(item, dict):
        raise _bad(task_id, f"subtask {place} must be a table", field=f"subtasks[{place}]")
    shaped = {key: value for key, value in item.items() if value is not None}
    for key in _TABLES:
        if shaped.get(key) == []:
            del shaped[key]
    if "depends_on" in shaped and "dependencies" not in shaped:
        shaped["dependencies"] = shaped["depends_on"]
    shaped.setdefault("id", f"task-{place}")
    node = shaped.get("node")
    if isinstance(node, dict) and node.get("type") not in NODE_TYPES:
        raise Rejected(
            "unknown_node_type", task_id=task_id, field=f"subtasks[{place}].node.type", known=list(NODE_TYPES)
        )
    return shaped


def _check_local(subtasks: list[Subtask], task_id: str) -> None:
    ids: set[str] = set()
    for place, subtask in enumerate(subtasks, 1):
        where = f"subtasks[{place}]"
        if not ID.match(subtask.id):
            raise Rejected(
                "bad_id", f"{where}: id {subtask.id[:80]!r} is malformed", task_id=task_id, field=f"{where}.id"
            )
        if subtask.id in ids:
            raise Rejected(
                "duplicate_id", f"{where}: id {subtask.id} is there twice", task_id=task_id, field=f"{where}.id"
            )
        ids.add(subtask.id)
        _check_subtask(subtask, where, task_id)
    for place, subtask in enumerate(subtasks, 1):
        for needed in subtask.dependencies:
            if needed not in ids:
                raise Rejected(
                    "unknown_dependency",
                    f"{subtask.id} depends on {needed[:80]!r}, which is no sibling",
                    task_id=task_id,
                    dependency=needed[:80],
                    field=f"subtasks[{place}].dependencies",
                )


def _check_subtask(subtask: Subtask, where: str, task_id: str) -> None:
    if not subtask.description.strip() or len(subtask.description) > DESCRIPTION_CHARS_MAX:
        raise _bad(
            task_id,
            f"{where}: description must have 1 to {DESCRIPTION_CHARS_MAX} characters",
            field=f"{where}.description",
        )
    complexity = subtask.estimated_complexity
    if complexity is not None and not math.isfinite(complexity):
        raise _bad(task_id, f"{where}: estimated_complexity is no number", field=f"{where}.estimated_complexity")
    if subtask.sparc_phase is not None and len(subtask.sparc_phase) > PHASE_CHARS_MAX:
        raise _bad(task_id, f"{where}: sparc_phase is too long", field=f"{where}.sparc_phase")
    if isinstance(subtask.node, GroupNode):
        raise _bad(task_id, f"{where}: a group comes from being decomposed", field=f"{where}.node")


def complexity_of(subtask: Subtask, parent_complexity: float, siblings: int) -> float:
    """The subtask's complexity within 0..COMPLEXITY_MAX; an even share of its parent's when the script gives none."""
    if subtask.estimated_complexity is None:
        return parent_complexity / siblings
    return min(max(subtask.estimated_complexity, 0.0), COMPLEXITY_MAX)


def _bad(task_id: str, message: str, **detail: Any) -> Rejected:
    return Rejected(
        "lua_bad_result", f"decomposition of {task_id}: {message}", task_id=task_id, stage="decomposition", **detail
    )
