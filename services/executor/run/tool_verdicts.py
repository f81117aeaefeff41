"""What a tool node's value says of its task: whether the exit code of its program is a failure. Pure.

For policy-gateway an exit code is a result, never a refusal. For a task it is what the node says; a tester's program
is run for its verdict, so that what waits for green tests, a deployment above all, never begins behind red ones.
"""

from typing import Any, Final

from contracts.errors import failure
from contracts.task import TESTER, TaskSpec, ToolNode
from contracts.tools import role_of

SHOWN_CHARS_MAX: Final = 2_000
"""So much of the end of each text stands in the error; all of it stands in the answer of the call."""
_TEXTS: Final = ("stdout", "stderr")


def failed_program(spec: TaskSpec, value: Any) -> dict[str, Any] | None:
    """The error of a tool node whose program ended badly; None when its value is a result."""
    exit_code = value.get("exit") if isinstance(value, dict) else None
    if type(exit_code) is not int or exit_code == 0 or not _fails_on_exit(spec):
        return None
    said = {name: str(value[name])[-SHOWN_CHARS_MAX:] for name in _TEXTS if value.get(name)}
    return failure("program_failed", f"the program ended with exit code {exit_code}", exit=exit_code, **said)


def _fails_on_exit(spec: TaskSpec) -> bool:
    node = spec.node
    says = node.fails_on_exit if isinstance(node, ToolNode) else None
    return role_of(spec.role) == TESTER if says is None else says
