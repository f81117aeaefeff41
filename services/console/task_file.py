"""Files of tasks: read, located when they are broken, and shaped for the verb that takes them."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import JSON_DEPTH_MAX, REQUEST_BYTES_MAX
from contracts.task import TaskSpec

STDIN: Final = "/dev/stdin"
"""What `-` on the command line becomes."""
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


def read(argument: str) -> bytes:
    """The bytes of a file, or of standard input; never more than a request may hold."""
    try:
        if argument == STDIN:
            data = sys.stdin.buffer.read(REQUEST_BYTES_MAX + 1)
        else:
            with Path(argument).open("rb") as file:
                data = file.read(REQUEST_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise Rejected("not_found", f"there is no file {argument}", hint="check the path") from error
    except OSError as error:
        raise Rejected("bad_request", f"cannot read {argument}: {error.strerror}", hint="check the path") from error
    if len(data) > REQUEST_BYTES_MAX:
        raise Rejected("too_large", f"{argument} is larger than {REQUEST_BYTES_MAX} bytes", max=REQUEST_BYTES_MAX)
    return data


def parse(data: bytes, name: str) -> Any:
    """The JSON in `data`; raises Rejected("bad_json") that says where it breaks."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise _located(data, name) from None


def _located(data: bytes, name: str) -> Rejected:
    """Ask the slower parser of the standard library where the mistake is."""
    hint = "one JSON document, UTF-8"
    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        return Rejected("bad_json", f"{name} {where}: {error.msg}", hint=hint, line=error.lineno, column=error.colno)
    except UnicodeDecodeError as error:
        return Rejected("bad_json", f"{name} is not UTF-8 at byte {error.start}", hint=hint, byte=error.start)
    except RecursionError:
        return Rejected("bad_json", f"{name} is nested deeper than {JSON_DEPTH_MAX}", hint="flatten it")
    return Rejected("bad_json", f"{name} is not strict JSON (NaN, Infinity or a doubled value)", hint=hint)


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
