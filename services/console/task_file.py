"""Files of tasks, shaped for the verb that takes them."""

from pathlib import Path
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.task import TaskSpec
from services.console.input_file import STDIN, parse, read

_PLAN_KEYS: Final = frozenset({"tasks", "run_id", "goal", "epic_id", "strategy", "options"})
_TASK_KEYS: Final = frozenset(field.name for field in msgspec.structs.fields(TaskSpec))


class OneTask(list[Any]):
    """The tasks of a file that holds one task by itself, not in a list."""


def looks_like_file(argument: str) -> bool:
    """Whether a word names a file rather than a goal: standard input, *.json, or a path that exists."""
    if argument == STDIN or argument.endswith(".json"):
        return True
    try:
        if len(argument) >= 4096 or "\n" in argument:
            return False
        path = Path(argument)
        return path.is_file() or ("/" in argument and path.is_dir())
    except (OSError, ValueError):
        return False


def read_plan(argument: str) -> tuple[dict[str, Any], list[str]]:
    """The plan in a file as `{"tasks": […], …}`, and remarks on what was not understood.

    The file holds a list of tasks, one task, or an object with `tasks`. Raises Rejected bad_json (with line and
    column), bad_request or too_large. Whether the tasks make a graph is judged by the service.
    """
    document = parse(read(argument), argument)
    if isinstance(document, list):
        plan: dict[str, Any] = {"tasks": document}
    elif isinstance(document, dict) and "tasks" in document:
        plan = document
    elif isinstance(document, dict) and "id" in document:
        plan = {"tasks": OneTask([document])}
    else:
        raise Rejected("bad_request", f"{argument} holds no tasks", hint='write a list of tasks, or {"tasks": […]}')
    if not isinstance(plan["tasks"], list):
        raise Rejected("bad_request", f"{argument}: tasks must be a list", field="tasks")
    for index, task in enumerate(plan["tasks"]):
        if not isinstance(task, dict):
            raise Rejected("bad_request", f"{argument}: tasks[{index}] is not an object", field=f"tasks[{index}]")
    return plan, remarks(plan)


def remarks(plan: dict[str, Any]) -> list[str]:
    """Fields that htdag does not know: they are ignored, which a typing mistake should not be in silence."""
    found = [f"{key} is not known and was ignored" for key in plan if key not in _PLAN_KEYS]
    unknown: dict[str, str] = {}
    for task in plan["tasks"]:
        for key in task:
            if key not in _TASK_KEYS:
                unknown.setdefault(key, str(task.get("id", "?")))
    return found + [
        f"task field {key} is not known and was ignored (first in {where})" for key, where in unknown.items()
    ]
