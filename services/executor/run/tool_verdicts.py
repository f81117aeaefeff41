"""What the programs that a task has run say of it: whether an exit code is a failure. Pure.

For policy-gateway an exit code is a result, never a refusal. For a task it is what the node says; a tester's program
is run for its verdict, so that what waits for green tests, a deployment above all, never begins behind red ones. Of an
agent that tests, the answer counts that ran programs last: before it finds out how, much may be red.
"""

from typing import Any, Final

from contracts.errors import failure
from contracts.run_tools import ToolAnswered, ToolRequested
from contracts.task import TESTER, TaskSpec, ToolNode
from contracts.tools import role_of
from services.executor.run.state import Work

SHOWN_CHARS_MAX: Final = 2_000
"""So much of the end of each text stands in the error; all of it stands in the answer of the call."""
PROGRAMS: Final = frozenset({"shell", "docker"})
_TEXTS: Final = ("stdout", "stderr")
_UNFINISHED: Final = frozenset({"execution", "timeout"})


def failed_program(spec: TaskSpec, value: Any) -> dict[str, Any] | None:
    """The error of a tool node whose program ended badly; None when its value is a result."""
    exit_code = _exit_of(value)
    if not exit_code or not _fails_on_exit(spec):
        return None
    said = {name: str(value[name])[-SHOWN_CHARS_MAX:] for name in _TEXTS if value.get(name)}
    return failure("program_failed", f"the program ended with exit code {exit_code}", exit=exit_code, **said)


def ran_badly(asked: ToolRequested, answered: ToolAnswered) -> bool | None:
    """Whether a program that an agent ran did not end well; None when the call ran none."""
    if asked.tool not in PROGRAMS:
        return None
    if answered.error is not None:
        return True if answered.error.get("class") in _UNFINISHED else None
    exit_code = _exit_of(answered.value)
    return None if exit_code is None else exit_code != 0


def failed_tests(spec: TaskSpec, work: Work | None) -> int:
    """How many of the programs that a tester's agents ran last ended badly; 0 for whoever is no tester."""
    if work is None or role_of(spec.role) != TESTER:
        return 0
    return sum(bad for _, bad in work.programs.values())


def tests_of(spec: TaskSpec, work: Work | None) -> Any:
    """What the completion gate is told of tests: what the task says, and what its agents found."""
    told, failed = spec.context.get("tests", {}), failed_tests(spec, work)
    if not failed:
        return told
    told = told if isinstance(told, dict) else {}
    unit = told.get("unit_tests")
    unit = unit if isinstance(unit, dict) else {}
    said = unit.get("failed")
    return {**told, "unit_tests": {**unit, "failed": max(failed, said) if type(said) is int else failed}}


def _exit_of(value: Any) -> int | None:
    exit_code = value.get("exit") if isinstance(value, dict) else None
    return exit_code if type(exit_code) is int else None


def _fails_on_exit(spec: TaskSpec) -> bool:
    node = spec.node
    says = node.fails_on_exit if isinstance(node, ToolNode) else None
    return role_of(spec.role) == TESTER if says is None else says
