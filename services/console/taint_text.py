"""What tasks have read, in words: on one line for a list, line by line before somebody releases what comes after it.

Names of files and hosts are chosen by whoever wrote the files: they are shown escaped.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from contracts.action_text import visible

TASKS_SHOWN_MAX: Final = 20
_NAMES_SHOWN_MAX: Final = 3


def read_text(readings: Iterable[Mapping[str, Any]], more: int) -> str:
    """Readings on one line, such as `fs /code/a.txt, http example.com, and 3 more`; "" without any."""
    found = [_one(reading) for reading in readings]
    rest = more + max(0, len(found) - _NAMES_SHOWN_MAX)
    return ", ".join([*found[:_NAMES_SHOWN_MAX], *([f"and {_at_least(more)}{rest} more"] if rest else [])])


def read_before(gate: Mapping[str, Any]) -> list[str]:
    """What was read before a gate, a line each; none when nothing was, or by an identity that does not know it yet."""
    readings, more = gate.get("read_from", ()), gate.get("read_more", 0)
    if not readings and not more:
        return []
    head = "  before this, text from outside was read, which may speak in what it is given:"
    lines = [f"    {_one(reading)}  by {visible(str(reading.get('task', '')))}" for reading in readings]
    return [head, *lines, *([f"    and {_at_least(more)}{more} more"] if more else [])]


def taint_lines(tasks: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the tasks of a run have read, and which tasks come after that; nothing for a run that read nothing."""
    told = list(tasks)
    readers = [task for task in told if task["read"]]
    behind = [str(task["id"]) for task in told if task["tainted_by"]]
    lines = [f"read   {task['id']}  {read_text(task['read'], task['read_more'])}" for task in readers[:TASKS_SHOWN_MAX]]
    if len(readers) > TASKS_SHOWN_MAX:
        lines.append(f"read   … and {len(readers) - TASKS_SHOWN_MAX} more tasks")
    if behind:
        rest = len(behind) - TASKS_SHOWN_MAX
        lines.append(f"taint  {', '.join(behind[:TASKS_SHOWN_MAX])}" + (f", and {rest} more" if rest > 0 else ""))
    return lines


def _at_least(more: int) -> str:
    """Readings that a task took over from many others are counted from below."""
    return "at least " if more else ""


def _one(reading: Mapping[str, Any]) -> str:
    return visible(f"{reading['tool']} {reading.get('what', '')}".rstrip())
