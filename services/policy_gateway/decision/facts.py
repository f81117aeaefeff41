"""What the edge has looked up for a decision: pure data, never taken from the call itself."""

from typing import NamedTuple


class Facts(NamedTuple):
    """The circumstances of a call.

    `bound_role` is the role of the task that the call belongs to, None outside of tasks; `bound_tools` are the only
    tools that this task may use, None where it may use all of its role. `calls_made` counts the http
    calls of this task so far; `approved` says whether an admin call of a task has its human approval; `mem_bytes_max`
    is the memory of the host; `engine_sockets` are paths of the docker engine beside the usual ones.
    """

    profile: str = "seed"
    bound_role: str | None = None
    bound_tools: frozenset[str] | None = None
    calls_made: int = 0
    approved: bool = True
    mem_bytes_max: int = 1 << 40
    engine_sockets: tuple[str, ...] = ()
