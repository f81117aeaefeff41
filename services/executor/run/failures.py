"""What becomes of an attempt that failed: tried again later, or failed for good. Pure."""

import zlib
from typing import Any, Final

from contracts.limits import RETRY_DELAY_FIRST_MS, RETRY_DELAY_MAX_MS, RETRY_DELAY_OVERLOADED_MS
from contracts.run import RunEvent, TaskFailed, TaskRetryScheduled
from services.executor.run.state import Run, TaskRecord

RETRIED: Final = frozenset(
    {
        "bad_reply",
        "call_interrupted",
        "circuit_open",
        "fetch_failed",
        "llm_unavailable",
        "mailbox_full",
        "nats_unavailable",
        "no_responders",
        "output_invalid",
        "provider_error",
        "provider_malformed",
        "provider_overloaded",
        "provider_unreachable",
        "rate_limit_exceeded",
        "service_unavailable",
        "storage_full",
        "strategy_not_found",
        "stream_missing",
    }
)
"""Codes of failures that may pass by themselves. A deadline that passed is final, and so is what policy denies."""
RETRY_AFTER_MAX_MS: Final = 600_000
DENIED: Final = "policy_violation"
UNAPPROVED: Final = "approval_required"


def opens_gate(task: TaskRecord, error: dict[str, Any] | None) -> bool:
    """Whether an attempt failed only for want of a human: the policy asks for one where the task itself did not.

    A task that a human releases has had its gate: it is not asked for another one in the same attempt.
    """
    return error is not None and error.get("code") == UNAPPROVED and error.get("class") == DENIED and not task.human


def ended_badly(run: Run, task: TaskRecord, error: dict[str, Any], now_ms: int) -> RunEvent:
    """The event that a failed attempt leads to. The last of several attempts says how many there were."""
    if opens_gate(task, error):
        return TaskRetryScheduled(task.spec.id, task.attempt, now_ms, error)
    made = task.attempt - task.attempts_base
    if error.get("code") in RETRIED and error.get("class") != DENIED:
        if made < task.spec.max_attempts:
            overloaded = error.get("code") in ("provider_overloaded", "rate_limit_exceeded")
            first_ms = RETRY_DELAY_OVERLOADED_MS if overloaded else RETRY_DELAY_FIRST_MS
            wait_ms = delay_ms(run.run_id, task.spec.id, task.attempt, made, first_ms)
            # Who is asked too often says when it can be worth while; the spread keeps all from coming at once.
            due_at_ms = now_ms + _told_ms(error) + wait_ms
            return TaskRetryScheduled(task.spec.id, task.attempt, due_at_ms, error)
        if made > 1:
            error = {**error, "attempts": made}
    return TaskFailed(task.spec.id, task.attempt, error)


def _told_ms(error: dict[str, Any]) -> int:
    """How long an open breaker or an overloaded provider asks to be left alone; nothing else is believed."""
    told: Any = None
    if error.get("code") == "circuit_open":
        told = error.get("retry_after_ms")
    elif error.get("code") == "provider_overloaded" and isinstance(error.get("retry_after"), int):
        told = error["retry_after"] * 1_000
    return min(told, RETRY_AFTER_MAX_MS) if isinstance(told, int) and told > 0 else 0


def delay_ms(run_id: str, task_id: str, attempt: int, made: int, first_ms: int = RETRY_DELAY_FIRST_MS) -> int:
    """How long to wait after the `made`-th try: doubling, bounded, with a spread that derives from the ids."""
    longest = min(RETRY_DELAY_MAX_MS, first_ms << min(made - 1, 16))
    spread = zlib.crc32(f"{run_id}/{task_id}/{attempt}".encode()) % (longest // 2 + 1)
    return longest - spread
