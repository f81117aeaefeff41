"""The ledger as people ask for it: each call under its day, its sums exact, and ended when it has ended."""

from typing import Any

from msgspec import structs

from contracts.ledger import (
    Abandoned,
    LedgerEvent,
    LedgerQuery,
    LedgerView,
    LlmPaid,
    LlmReleased,
    LlmReserved,
    LlmReused,
    LlmTakenOver,
)
from services.llm_worker.ledger import rows
from services.llm_worker.ledger.rows import Rows
from services.llm_worker.ledger.state import DAY_MS, day_of

LATE_MS = 20_600 * DAY_MS - 1_000
"""A second before midnight."""
MORNING_MS = LATE_MS + 2_000
TODAY, TOMORROW = day_of(LATE_MS), day_of(MORNING_MS)


def reserved(corr_id: str = "c", at_ms: int = LATE_MS, usd: int | None = 7) -> LlmReserved:
    return LlmReserved(corr_id, at_ms, "w1", "m", 10, usd, 1, at_ms + 1)


def paid(corr_id: str = "c", cost: int | None = 5, day: str = TODAY) -> LlmPaid:
    return LlmPaid(corr_id, MORNING_MS, "w1", day, "m", "mock", 3, 4, cost, 1)


def told(*events: LedgerEvent, **query: Any) -> LedgerView:
    found = Rows(LedgerQuery(**query))
    found.take(events)
    assert found.held == (found.view().reserved > 0)
    return found.view()


def test_a_call_that_is_released_after_midnight_is_over_on_its_own_day():
    story = (reserved(), LlmReleased("c", MORNING_MS, "w1", "timeout"))
    view = told(*story, day=TODAY)
    assert (view.reserved, view.reserved_usd_micros, [row.status for row in view.rows]) == (0, 0, ["released"])
    assert told(*story, day=TOMORROW).rows == []
    assert told(reserved(), day=TODAY).reserved_usd_micros == 7


def test_a_call_that_is_taken_over_and_paid_after_midnight_counts_for_its_own_day():
    story = (reserved(), LlmTakenOver("c", MORNING_MS, "w2", 1, MORNING_MS + 1), paid())
    view = told(*story, day=TODAY)
    assert (view.calls, view.tokens, view.cost_usd_micros, view.reserved) == (1, 7, 5, 0)
    assert told(*story, day=TOMORROW).calls == 0


def test_a_task_has_sums_of_its_own():
    story = [structs.replace(paid(f"c{number}"), run_id="r", task_id=f"t{number % 2}") for number in range(5)]
    view = told(*story, run_id="r", task_id="t0")
    assert (view.calls, view.cost_usd_micros) == (3, 15)
    assert told(*story, run_id="other", task_id="t0").calls == 0


def test_answers_are_counted_beside_what_is_paid():
    again = [LlmReused("c", MORNING_MS + number * DAY_MS, "w2") for number in range(2)]
    view = told(reserved(), paid(), *again, LlmReused("other", MORNING_MS, "w2"))
    assert [(row.corr_id, row.status, row.answers) for row in view.rows] == [("c", "paid", 3)]
    assert (view.calls, view.cost_usd_micros) == (1, 5)
    assert told(reserved(), paid(), *again, day=TOMORROW).rows == []


def test_what_nobody_heard_is_held_and_paid_with_its_call():
    once, twice = [Abandoned("openai", "m", 10, 7)], [Abandoned("openai", "m", 20, 14)]
    story: list[LedgerEvent] = [
        reserved(),
        LlmTakenOver("c", LATE_MS, "w2", 1, MORNING_MS, once),
        LlmTakenOver("c", LATE_MS, "w3", 1, MORNING_MS, twice),
    ]
    view = told(*story)
    (row,) = view.rows
    assert (view.reserved_usd_micros, row.reserved_tokens, row.worker_id) == (21, 30, "w3")
    view = told(*story, structs.replace(paid(cost=19), abandoned=twice))
    (row,) = view.rows
    assert (view.cost_usd_micros, view.tokens) == (19, 27)
    assert (row.abandoned_usd_micros, row.abandoned_tokens) == (14, 20)


def test_unknown_cost_is_counted_and_never_added():
    view = told(paid(cost=None), paid("d", cost=2))
    assert (view.calls, view.cost_usd_micros, view.cost_unknown) == (2, 2, 1)


def test_old_calls_stay_in_the_sums_and_open_ones_in_the_rows(monkeypatch):
    monkeypatch.setattr(rows, "ROWS_MAX", 2)
    view = told(reserved("open"), *(paid(f"c{number}") for number in range(9)), limit=100)
    assert (view.calls, view.cost_usd_micros, view.reserved) == (9, 45, 1)
    assert len(view.rows) <= 5
    assert [row.corr_id for row in view.rows if row.status == "reserved"] == ["open"]
