"""From a goal to a graph: the decomposition script is asked again and again until every task is atomic.

A task is atomic below ATOMIC_BELOW_COMPLEXITY, at depth TASK_DEPTH_MAX, when the script gives no subtasks, or when
the plan is full. What was decomposed becomes a group that ends when its children have ended. The goal itself is
depth 0 and no task of its own, unless it is atomic.
"""

from collections import deque
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec

from contracts.errors import Rejected
from contracts.limits import ATOMIC_BELOW_COMPLEXITY, GOAL_CHARS_MAX, ID_CHARS_MAX, REQUEST_BYTES_MAX, TASK_DEPTH_MAX
from contracts.task import ADMIN, AgentNode, GroupNode, TaskSpec
from services.planner.graph import check_graph
from services.planner.intake import accept_task, encoded_bytes
from services.planner.subtasks import ROLE_OF_PHASE, Subtask, complexity_of, read_subtasks

GOAL_TASK_ID: Final = "goal"
PLAN_TASKS_MAX: Final = 2_000
PLAN_BYTES_MAX: Final = REQUEST_BYTES_MAX // 2
TITLE_CHARS: Final = 120
_HASH_CHARS: Final = 10


class LuaCalls(Protocol):
    """Where scripts run: `services.runtime.lua.host.LuaHost`, or a stand-in of a test."""

    async def call(self, src: str, context: Any, *, argv: Any = (), timeout_ms: int = 5000, stage: str = "lua") -> Any:
        """Run a script with a global `context` and return its value as JSON data."""
        ...


@dataclass(frozen=True, slots=True)
class Decomposition:
    """A goal as a graph. `depth` is that of the deepest task."""

    tasks: list[TaskSpec]
    depth: int
    reasoning: str


@dataclass(slots=True)
class _Growing:
    """A plan that is still being made: tasks by id, in order of arrival."""

    tasks: dict[str, TaskSpec] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    size_bytes: int = 0

    def add(self, task: TaskSpec, history: list[dict[str, Any]]) -> None:
        self.size_bytes += encoded_bytes(task)
        if self.size_bytes > PLAN_BYTES_MAX:
            raise Rejected(
                "too_large",
                "the plan of this goal is too large: shorten the goal",
                max=PLAN_BYTES_MAX,
                requested=self.size_bytes,
            )
        self.tasks[task.id] = task
        self.history[task.id] = history


def goal_task(goal: str, complexity: float) -> TaskSpec:
    """The goal as the one task it is before it is decomposed."""
    return TaskSpec(
        id=GOAL_TASK_ID,
        title=title_of(goal),
        description=goal,
        task_type="goal",
        estimated_complexity=complexity,
        depth=0,
    )


async def decompose(goal: str, complexity: float, script: str | None, lua: LuaCalls) -> Decomposition:
    """Decompose `goal` with a strategy's script; without one the goal is one atomic task.

    Raises what the script's failure is called (lua_*), or bad_id, duplicate_id, unknown_dependency, cycle,
    unknown_role, bad_request for what it returned, or too_large.
    """
    root = goal_task(goal, complexity)
    plan = _Growing()
    reasoning = ""
    if script is not None and complexity >= ATOMIC_BELOW_COMPLEXITY:
        reasoning = await _ask(root, "", script, lua, plan, [])
    if not plan.tasks:
        plan.add(root, [])
    waiting = deque(task.id for task in plan.tasks.values() if script is not None and task.depth > 0)
    while waiting and script is not None:
        task = plan.tasks[waiting.popleft()]
        if is_atomic(task):
            continue
        before = len(plan.tasks)
        if before >= PLAN_TASKS_MAX:
            break
        await _ask(task, task.id, script, lua, plan, plan.history[task.id])
        waiting.extend(list(plan.tasks)[before:])
    tasks = list(plan.tasks.values())
    check_graph(tasks)
    return Decomposition(tasks, max(task.depth for task in tasks), reasoning)


async def _ask(
    task: TaskSpec, prefix: str, script: str, lua: LuaCalls, plan: _Growing, history: list[dict[str, Any]]
) -> str:
    """Ask the script about one task and let its subtasks join the plan. Returns the script's reasoning."""
    value = await lua.call(script, stage_context(task, history, len(plan.tasks)), stage="decomposition")
    answer = read_subtasks(value, task.id)
    if not answer.subtasks or len(plan.tasks) + len(answer.subtasks) > PLAN_TASKS_MAX:
        return answer.reasoning
    ids = {subtask.id: _join(prefix, subtask.id, plan.tasks) for subtask in answer.subtasks}
    past = [*history, {"task": task.id, "strategy": answer.strategy, "reasoning": answer.reasoning}]
    for subtask in answer.subtasks:
        spec = _task_of(subtask, ids, task, len(answer.subtasks))
        plan.add(accept_task(msgspec.structs.replace(spec, parent=prefix or None)), past)
    if prefix:
        group = GroupNode(strategy=answer.strategy, reasoning=answer.reasoning)
        plan.tasks[task.id] = msgspec.structs.replace(task, node=group)
    return answer.reasoning


def is_atomic(task: TaskSpec) -> bool:
    """Whether a task is carried out as it stands. Only what agents do can be decomposed, and no admin's task: what a
    human is to release is the task itself.
    """
    return (
        task.role == ADMIN
        or task.estimated_complexity < ATOMIC_BELOW_COMPLEXITY
        or task.depth >= TASK_DEPTH_MAX
        or not isinstance(task.node, AgentNode)
    )


def stage_context(task: TaskSpec, history: list[dict[str, Any]], tasks_planned: int) -> dict[str, Any]:
    """What a decomposition script sees: the task, its phase, how it came to be, and where the plan stands."""
    return {
        "task": task_for_lua(task),
        "phase": task.sparc_phase or "decomposition",
        "history": history,
        "metrics": {
            "depth": task.depth,
            "depth_max": TASK_DEPTH_MAX,
            "atomic_below": ATOMIC_BELOW_COMPLEXITY,
            "tasks_planned": tasks_planned,
        },
    }


def task_for_lua(task: TaskSpec) -> dict[str, Any]:
    """A task as scripts read it, every field with a value present."""
    return {
        "id": task.id,
        "title": task.title,
        "description": task.description,
        "role": task.role,
        "depends_on": task.depends_on,
        "context": task.context,
        "priority": task.priority,
        "estimated_complexity": task.estimated_complexity,
        "task_type": task.task_type,
        "sparc_phase": task.sparc_phase,
        "acceptance_criteria": task.acceptance_criteria,
        "depth": task.depth,
    }


def title_of(description: str) -> str:
    """The first line of a description, cut to TITLE_CHARS."""
    line = description.strip().partition("\n")[0].strip()
    return line if len(line) <= TITLE_CHARS else f"{line[: TITLE_CHARS - 1]}…"


def _task_of(subtask: Subtask, ids: dict[str, str], parent: TaskSpec, siblings: int) -> TaskSpec:
    role = subtask.role or ROLE_OF_PHASE.get(subtask.sparc_phase or "", parent.role)
    return TaskSpec(
        id=ids[subtask.id],
        title=subtask.title or title_of(subtask.description),
        description=subtask.description[:GOAL_CHARS_MAX],
        role=role,
        depends_on=[ids[needed] for needed in dict.fromkeys(subtask.dependencies)],
        context=subtask.context or parent.context,
        priority=parent.priority if subtask.priority is None else subtask.priority,
        estimated_complexity=complexity_of(subtask, parent.estimated_complexity, siblings),
        task_type=subtask.task_type,
        sparc_phase=subtask.sparc_phase,
        acceptance_criteria=subtask.acceptance_criteria or parent.acceptance_criteria,
        timeout_ms=subtask.timeout_ms,
        node=subtask.node,
        depth=parent.depth + 1,
    )


def _join(prefix: str, local: str, taken: dict[str, TaskSpec]) -> str:
    """The id of a subtask in its run: `<parent>-<local>`; with a digest when that is too long or taken."""
    full = f"{prefix}-{local}" if prefix else local
    if len(full) <= ID_CHARS_MAX and full not in taken:
        return full
    digest = sha256(f"{prefix}/{local}".encode()).hexdigest()[:_HASH_CHARS]
    return f"{full[: ID_CHARS_MAX - _HASH_CHARS - 1]}-{digest}"
