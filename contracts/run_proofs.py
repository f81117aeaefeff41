"""What is found when a run's log is read again: its results, the same state, and nothing done twice."""

from typing import Any

import msgspec

from contracts.task import RunState


class ReplayReport(msgspec.Struct, frozen=True, omit_defaults=False):
    """What a replay found: it folds the stored log with today's code and calls nobody."""

    run_id: str
    events: int
    commits: int
    llm_calls: int
    digest: str
    recorded_digest: str | None
    equal: bool
    status: RunState
    order_ok: bool
    events_per_s: float = 0.0


class RunAudit(msgspec.Struct, frozen=True, omit_defaults=False):
    """Proof for one run: what was paid, twice or not, what still waits."""

    run_id: str
    llm_calls_paid: int
    llm_calls_distinct: int
    duplicates: int
    tasks_completed_twice: int
    tools_run_twice: int
    open_waits: int
    tool_calls: int = 0


class RunResult(msgspec.Struct, frozen=True, omit_defaults=False):
    """What a run produced: counts, the result per completed task, and what it learned.

    `mutations_proposed` are changes that somebody thought of; one stands in `mutations_applied` only when a later
    request was made with it. Both are empty while there is no evolution.
    """

    run_id: str
    status: RunState
    completed: int
    failed: int
    results: dict[str, Any]
    mutations_applied: list[Any]
    error: dict[str, Any] | None = None
    mutations_proposed: list[Any] = []
