"""The tool calls that a run's log asks for and has no answer to yet: only these are a task's own.

Whoever may write to the gateway can name any task. What the executor decided stands in the log before it is sent, so a
call that is not there, or is another one there, is not the task's. Of each only a digest is kept.
"""

from typing import Any, NamedTuple

from contracts.approval import action_digest
from contracts.errors import Rejected
from contracts.policy import CallOf, ToolCall
from contracts.run_tools import ToolRequested
from contracts.tools import as_sent, only_reads

OTHER = "this call of the task was another one"


def digest_of(tool: str, args: Any, opts: Any) -> str:
    """Identifies what a call asks for, as it is sent."""
    tool, args = as_sent(tool, args)
    return action_digest([tool, args, opts])


class _Asked(NamedTuple):
    """One request, as far as a call must be the same."""

    digest: str
    barred: bool


class Requested:
    """The open requests of one run, by task and number. Those of a task belong to its attempt that is under way."""

    def __init__(self) -> None:
        self._open: dict[str, dict[int, _Asked]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def ask(self, asked: ToolRequested, only: str) -> None:
        """Take in a request. `only` is the digest of the one call that a tool node has, "" where calls are many.

        A tool node's call is made again in one attempt only if it reads; whatever else a log says is not its call.
        """
        digest = digest_of(asked.tool, asked.args, asked.opts)
        if only and (digest != only or (asked.call > 1 and not only_reads(asked.tool, asked.args))):
            return
        calls = self._open.setdefault(asked.task_id, {})
        if asked.call not in calls:  # the first one counts: it may have been carried out
            calls[asked.call] = _Asked(digest, asked.barred)
            self._count += 1

    def answered(self, task_id: str, call: int) -> None:
        """Nobody asks for this one any more."""
        if self._open.get(task_id, {}).pop(call, None) is not None:
            self._count -= 1

    def drop(self, task_id: str) -> None:
        """The attempt of a task is over, or another one begins."""
        self._count -= len(self._open.pop(task_id, ()))

    def has(self, call: CallOf) -> bool:
        """Whether there is a request under this number."""
        return call.call in self._open.get(call.task_id, {})

    def refusal(self, call: CallOf, tool: str, asked: ToolCall) -> Rejected | None:
        """Why this is not the call that the log asks for; None when it is."""
        found = self._open.get(call.task_id, {}).get(call.call)
        if found is None:
            return Rejected("call_not_requested", run_id=call.run_id, task_id=call.task_id, requested=call.call)
        if found != _Asked(action_digest([tool, asked.args, asked.opts]), asked.barred):
            return Rejected("conflict", OTHER, run_id=call.run_id, task_id=call.task_id, requested=call.call)
        return None
