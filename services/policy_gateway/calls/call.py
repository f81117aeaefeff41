"""One tool call as it came in, and its name."""

from hashlib import sha256
from typing import NamedTuple

from contracts.policy import CallOf, ToolCall
from services.runtime.ids import Ids

ID_CHARS: int = 32


class Call(NamedTuple):
    """A call with everything that is known of it without looking. `arrived_s` is a time of the event loop's clock."""

    id: str
    role: str
    tool: str
    asked: ToolCall
    by: str
    corr: str
    arrived_s: float

    @property
    def of(self) -> CallOf | None:
        """The task it says it belongs to."""
        return self.asked.task


def id_of(task: CallOf | None, ids: Ids) -> str:
    """A call of a task is the same whenever it is asked; any other is a new one each time."""
    if task is None:
        return ids.new()
    name = f"{task.run_id}/{task.task_id}/{task.attempt}/{task.call}"
    return sha256(name.encode()).hexdigest()[:ID_CHARS]
