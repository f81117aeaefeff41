"""A plan, or an accepted run, in words."""

from collections.abc import Mapping
from typing import Any

from services.console.board_text import shorten
from services.console.output import columns


def plan_text(plan: Mapping[str, Any]) -> str:
    """A plan with its tasks, or the one line of an accepted run."""
    if "tasks" not in plan:
        return f"run {plan['run_id']}  {plan.get('status', 'accepted')}  {plan.get('total', 0)} tasks"
    run = f"run {plan['run_id']}  " if plan.get("run_id") else ""
    tasks = plan["tasks"]
    head = f"{run}plan: {len(tasks)} tasks (depth {plan['depth']})  strategy {plan.get('strategy') or 'none'}"
    rows = [
        (
            "  " * int(task.get("depth") or 0) + task["id"],
            task.get("sparc_phase"),
            f"{task.get('estimated_complexity', 0):g}",
            task.get("role"),
            ", ".join(task.get("depends_on") or ()),
            shorten(task.get("title") or task.get("description") or ""),
        )
        for task in tasks
    ]
    reasoning = f"\n{plan['reasoning']}" if plan.get("reasoning") else ""
    return head + reasoning + "\n" + columns(("TASK", "PHASE", "COMPLEXITY", "ROLE", "AFTER", "TITLE"), rows)
