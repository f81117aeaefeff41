"""What a stage sees when it is only tried: a whole task and a whole context, made from what was given. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from contracts.limits import ATOMIC_BELOW_COMPLEXITY, TASK_DEPTH_MAX
from contracts.task import TaskSpec
from services.planner.decompose import task_for_lua, title_of

GATE_INPUTS: Final = ("execution_results", "tests", "code_quality")
"""What the completion stage judges; taken from the task too, because that is where people write it."""


def trial_context(stage: str, task: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """The context of one stage: defaults, then `task`, then `context` over all."""
    description = str(task.get("description") or task.get("title") or "")
    whole_task = {**task_for_lua(TaskSpec(id="task", title=title_of(description), description=description)), **task}
    made: dict[str, Any] = {
        "task": whole_task,
        "phase": whole_task.get("sparc_phase") or stage,
        "history": [],
        "metrics": {
            "depth": 0,
            "depth_max": TASK_DEPTH_MAX,
            "atomic_below": ATOMIC_BELOW_COMPLEXITY,
            "tasks_planned": 0,
        },
    }
    if stage == "orchestration":
        made["agents"] = [{"role": "code_developer", "model": "gemini-1.5-flash", "primary": True}]
    if stage == "completion":
        made.update({key: task[key] for key in GATE_INPUTS if key in task})
    return {**made, **context}
