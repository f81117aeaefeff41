"""What an epic spent is the sum of what the ledger says was paid for it, to the micro-dollar and once."""

from typing import Any

from contracts.commit import HEADER_TYPES, Commit
from contracts.ledger import LlmPaid, LlmReleased
from services.planner.epic_spending import LEDGER_CODEC, EpicSpending, EpicSpent
from services.runtime.event_store import Recorded


def commit(seq: int, *events: Any) -> Recorded:
    data = LEDGER_CODEC.encode(Commit(at="", by="", cause="", corr="", events=list(events)))
    return Recorded(
        seq, "htdag.v1.evt.llm-worker.ledger.all", data, {HEADER_TYPES: LEDGER_CODEC.types_header([*events])}
    )


def paid(cost: int | None, epic_id: str = "auth", **more: Any) -> LlmPaid:
    return LlmPaid("c", 1, "w", "2026-11-28", "m", "mock", 3, 4, cost, 1, epic_id=epic_id, **more)


def test_every_paid_call_counts_for_its_epic_and_unknown_is_not_zero():
    spending = EpicSpending()
    spending.take(commit(1, paid(5), paid(7, "other"), LlmReleased("x", 1, "w", "timeout")))
    spending.take(commit(2, paid(None), paid(9, ""), paid(3, estimated=True)))
    assert spending.of("auth") == EpicSpent(21, 8, 1)
    assert spending.of("other") == EpicSpent(7, 7)
    assert spending.of("nobody") == EpicSpent()


def test_a_commit_that_comes_again_changes_nothing():
    spending = EpicSpending()
    for seq in (1, 2, 2, 1):
        spending.take(commit(seq, paid(5)))
    assert spending.of("auth") == EpicSpent(14, 10)


def test_what_holds_no_payment_is_not_even_read():
    spending = EpicSpending()
    spending.take(Recorded(1, "s", b"no commit", {}))
    spending.take(commit(2, LlmReleased("x", 1, "w", "timeout")))
    spending.take(commit(3, paid(1)))
    assert spending.of("auth") == EpicSpent(7, 1)
