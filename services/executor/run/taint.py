"""Taint: which tasks hold text from outside of the run, and where it came from. Pure, and folded from the log alone.

Whatever brings text in taints the task that asked for it, over all its attempts, and every task behind it. A call
taints unless it is known to bring nothing, so that a new tool taints from its first day.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.taint import READ_FROM_MAX, READ_MAX, READERS_MAX, WHAT_CHARS_MAX, Reading
from contracts.task import NatsNode
from services.executor.run.failures import DENIED
from services.executor.run.state import UNTAINTED, Run, Taint, TaskRecord

NATS: Final = "nats"
"""Stands for the tool where a node of type nats was answered."""
_CUT: Final = "…"


class ReadBefore(NamedTuple):
    """What was read before a task: the first things, and of how many more is known."""

    told: list[Reading]
    more: int


def brings_nothing(tool: str, args: Any) -> bool:
    """Whether what a call gives is known to be no text from outside: a file that is written, a script of its own."""
    if tool == "fs":
        return isinstance(args, Mapping) and "write" in args and "read" not in args
    return tool == "lua"  # it has neither files nor network: what it returns was in its source


def tool_answered(task: TaskRecord, asked: ToolRequested, answered: ToolAnswered) -> None:
    """Take in what a call gave. What was denied never ran; any other error may hold words of what ran."""
    denied = answered.error is not None and answered.error.get("class") == DENIED
    if not (asked.barred or denied or brings_nothing(asked.tool, asked.args)):
        _read(task, asked.tool, what_of(asked.tool, asked.args))


def completed(task: TaskRecord) -> None:
    """Take in that a task is done: an answer over NATS came from outside, and a group stands for its children."""
    node = task.spec.node
    if type(node) is NatsNode and node.mode == "request":
        _read(task, NATS, _cut(node.subject))
    if task.is_group:
        _behind(task, task.children)


def begun(run: Run, task: TaskRecord) -> None:
    """Take over the taint of what stands before a task: all of that is completed, so it never changes any more."""
    spec = task.spec
    if spec.depends_on:
        _behind(task, (run.tasks[needed] for needed in spec.depends_on))
    parent = task.parent
    if parent is not None and parent.taint is not None:
        _behind(task, (parent,))


def read_before(run: Run, task: TaskRecord) -> ReadBefore:
    """What a task has read in earlier attempts, and what the tasks before it read, for whoever releases it."""
    if task.taint is None:
        return ReadBefore([], 0)
    readers = [task, *(run.tasks[name] for name in task.taint.readers)]
    found = [
        Reading(tool, what, reader.spec.id)
        for reader in readers
        if reader.taint is not None
        for tool, what in reader.taint.read
    ]
    more = sum(reader.taint.read_more for reader in readers if reader.taint is not None) + task.taint.readers_more
    return ReadBefore(found[:READ_FROM_MAX], more + max(0, len(found) - READ_FROM_MAX))


def what_of(tool: str, args: Any) -> str:
    """What a call reads, by its name alone: arguments, and whatever stands behind a host, may hold secrets."""
    given = args if isinstance(args, Mapping) else {}
    match tool:
        case "fs":
            found = given.get("read")
        case "http":
            found = _host(given.get("url"))
        case "docker":
            found = given.get("image")
        case "git" | "shell":
            words = given.get("cmd")
            found = words[0] if isinstance(words, list) and words else None
        case _:
            found = None
    return _cut(found) if isinstance(found, str) else ""


def _host(url: Any) -> str:
    try:
        return urlsplit(url).hostname or "" if isinstance(url, str) else ""
    except ValueError:
        return ""


def _cut(text: str) -> str:
    return text if len(text) <= WHAT_CHARS_MAX else text[: WHAT_CHARS_MAX - 1] + _CUT


def _read(task: TaskRecord, tool: str, what: str) -> None:
    old = task.taint or UNTAINTED
    one = (_cut(tool), what)
    if one in old.read:
        return
    if len(old.read) < READ_MAX:
        task.taint = Taint((*old.read, one), old.read_more, old.readers, old.readers_more)
    else:
        task.taint = Taint(old.read, old.read_more + 1, old.readers, old.readers_more)


def _behind(task: TaskRecord, before: Iterable[TaskRecord]) -> None:
    """A task stands behind these: the ones that read themselves are named before those that they stand behind."""
    found: dict[str, None] = {}
    more = 0
    for other in before:
        taint = other.taint
        if taint is None:
            continue
        if taint.read:
            found[other.spec.id] = None
        found.update(dict.fromkeys(taint.readers))
        more = max(more, taint.readers_more)
    if not found:
        return
    old = task.taint or UNTAINTED
    names = [*dict.fromkeys((*old.readers, *found))]
    more = max(more, old.readers_more, len(names) - READERS_MAX)
    task.taint = Taint(old.read, old.read_more, tuple(names[:READERS_MAX]), more)
