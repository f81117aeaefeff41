"""RUN: the run aggregate as one value, for the actor host, the replay and the tests."""

from collections.abc import Mapping
from typing import Any, Final

from contracts.run import RunCommand, RunEvent, StartRun, TakeTime
from services.executor.run.advance import advance
from services.executor.run.decide import decide
from services.executor.run.evolve import evolve
from services.executor.run.react import react, recover
from services.executor.run.state import Run, deadline_at_ms, initial, is_terminal
from services.runtime.decider import Decider

GOAL_SHOWN_CHARS: Final = 120


def summary(run: Run) -> Mapping[str, Any] | None:
    """What a list of runs shows; the fields of RunSummary that a state knows."""
    if run.status is None:
        return None
    shown: dict[str, Any] = {
        "run_id": run.run_id,
        "status": run.status,
        "total": len(run.tasks),
        "completed": run.completed_count,
        "failed": run.failed_count,
        "tokens": run.tokens,
        "cost_usd_micros": run.cost_usd_micros,
        "cost_unknown": run.cost_unknown,
        "goal": run.goal[:GOAL_SHOWN_CHARS],
    }
    if run.epic_id is not None:
        shown["epic_id"] = run.epic_id
    return shown


def _begins(command: RunCommand) -> bool:
    return type(command) is StartRun


def _weight(run: Run) -> int:
    return len(run.tasks) + len(run.calls)


def _time_passed(_now_ms: int) -> RunCommand:
    return TakeTime()


RUN: Final[Decider[RunCommand, Run, RunEvent]] = Decider(
    initial=initial,
    decide=decide,
    evolve=evolve,
    is_terminal=is_terminal,
    advance=advance,
    react=react,
    recover=recover,
    deadline_at_ms=deadline_at_ms,
    time_command=_time_passed,
    begins=_begins,
    summary=summary,
    weight=_weight,
)
