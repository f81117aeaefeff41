"""Gates as lists show them: the one that expires first first, and never more than one answer carries."""

from typing import Any

import msgspec
import pytest

from contracts.approval import (
    ACTION_LISTED_BYTES_MAX,
    APPROVAL_TIMEOUT_MAX_MS,
    APPROVERS_MAX,
    ApprovalAnswered,
    ApprovalDenied,
    ApprovalEvent,
    ApprovalRequested,
    action_digest,
)
from contracts.commit import Commit
from contracts.errors import Rejected
from contracts.limits import REQUEST_BYTES_MAX, TITLE_CHARS_MAX
from contracts.subjects import events
from contracts.taint import READ_FROM_LISTED_MAX, READ_FROM_MAX, WHAT_CHARS_MAX, Reading
from services.identity.approval_book import APPROVAL_CODEC, CLOSED_KEPT_MAX, TITLE_LISTED_CHARS_MAX, ApprovalBook
from services.identity.handlers.approvals import PAGE_MAX
from services.runtime.event_store import Recorded
from tests.support.spec import NOW_MS


def taken(book: ApprovalBook, number: int, *facts: ApprovalEvent, approval_id: str = "") -> None:
    data = APPROVAL_CODEC.encode(Commit(at="", by="", cause="", corr="", events=list(facts)))
    subject = events("identity", "approval", approval_id or f"apr-{number}")
    book.take(Recorded(number, subject, data, {}))


def asked(number: int, *, expires_at_ms: int = NOW_MS, run_id: str = "r1", **more: Any) -> ApprovalRequested:
    action = more.pop("action", {"do": number})
    said = {"title": "", "requested_by": "executor", "approvers": [], **more}
    return ApprovalRequested(
        approval_id=f"apr-{number}", run_id=run_id, task_id="deploy", attempt=1, digest=action_digest(action),
        action=action, at_ms=NOW_MS, expires_at_ms=expires_at_ms, **said,
    )  # fmt: skip


def listed(book: ApprovalBook, *, run_id: str | None = None, everything: bool = False) -> list[str]:
    return [view.approval_id for view in book.page(run_id=run_id, everything=everything, limit=PAGE_MAX, now_ms=NOW_MS)]


def test_what_expires_first_stands_first_and_what_was_closed_last_behind_it():
    book = ApprovalBook()
    for number, left in ((1, 9), (2, 5), (3, 7)):
        taken(book, number, asked(number, expires_at_ms=NOW_MS + left, run_id=f"r{number}"))
    taken(book, 4, ApprovalDenied("aka", 7, NOW_MS), ApprovalAnswered("denied", NOW_MS), approval_id="apr-2")
    assert listed(book) == ["apr-3", "apr-1"]
    assert listed(book, everything=True) == ["apr-3", "apr-1", "apr-2"]
    assert listed(book, everything=True, run_id="r2") == ["apr-2"]
    assert (book.open, book.due(NOW_MS + 8)) == (2, ["apr-3"])


def test_a_list_goes_on_behind_a_gate_wherever_that_one_stands_by_now():
    book = ApprovalBook()
    for number, left in ((1, 9), (2, 5), (3, 7), (4, 7)):
        taken(book, number, asked(number, expires_at_ms=NOW_MS + left))
    taken(book, 5, asked(5), ApprovalDenied("aka", 7, NOW_MS), ApprovalAnswered("denied", NOW_MS))

    def behind(after: str, *, everything: bool = False) -> list[str]:
        page = book.page(run_id=None, everything=everything, limit=PAGE_MAX, now_ms=NOW_MS, after=after)
        return [view.approval_id for view in page]

    assert behind("apr-3") == ["apr-4", "apr-1"]
    assert behind("apr-1", everything=True) == ["apr-5"]
    assert behind("apr-5", everything=True) == []
    taken(book, 6, ApprovalDenied("aka", 7, NOW_MS), ApprovalAnswered("denied", NOW_MS), approval_id="apr-3")
    assert behind("apr-3") == ["apr-4", "apr-1"]
    assert behind("apr-3", everything=True) == ["apr-5"]
    with pytest.raises(Rejected, match="approval_not_found"):
        behind("apr-6")


def test_a_list_says_what_is_left_of_a_gate_that_is_open():
    book = ApprovalBook()
    for number, left in ((1, 9), (2, 5), (3, 1)):
        taken(book, number, asked(number, expires_at_ms=NOW_MS + left))
    taken(book, 4, ApprovalDenied("aka", 7, NOW_MS), ApprovalAnswered("denied", NOW_MS), approval_id="apr-2")
    page = book.page(run_id=None, everything=True, limit=PAGE_MAX, now_ms=NOW_MS + 2)
    assert [(view.approval_id, view.left_ms) for view in page] == [("apr-3", 0), ("apr-1", 7), ("apr-2", None)]


def test_a_list_shows_small_actions_whole_and_says_how_large_the_others_are():
    book = ApprovalBook()
    taken(book, 1, asked(1, action={"do": "x" * ACTION_LISTED_BYTES_MAX}))
    taken(book, 2, asked(2))
    large, small = book.page(run_id=None, everything=False, limit=2, now_ms=NOW_MS)
    assert (large.action, large.action_bytes > ACTION_LISTED_BYTES_MAX, small.action) == (None, True, {"do": 2})


def test_a_list_shows_the_beginning_of_what_was_read_and_counts_the_rest():
    book = ApprovalBook()
    read = [Reading("fs", f"/code/{number}", "read") for number in range(READ_FROM_MAX)]
    taken(book, 1, asked(1, read_from=read, read_more=2))
    [view] = book.page(run_id=None, everything=False, limit=1, now_ms=NOW_MS)
    assert view.read_from == read[:READ_FROM_LISTED_MAX]
    assert view.read_more == 2 + READ_FROM_MAX - READ_FROM_LISTED_MAX


@pytest.mark.parametrize(
    "more",
    [
        {"read_from": [Reading("\x01" * WHAT_CHARS_MAX, "\u263a" * WHAT_CHARS_MAX, "x" * 64)] * READ_FROM_MAX},
        {"title": "\u263a" * TITLE_CHARS_MAX},
        {"title": "\x01" * TITLE_CHARS_MAX, "approvers": ["\u263a" * 64] * APPROVERS_MAX},
        {"action": {"do": "\u263a" * 1_300}},
    ],
)
def test_any_list_fits_into_one_answer(more: dict[str, Any]):
    """Whoever plans tasks with long titles does not keep people from seeing what waits for them."""
    book = ApprovalBook()
    for number in range(PAGE_MAX):
        taken(book, number + 1, asked(number, **more))
    shown = book.page(run_id=None, everything=True, limit=PAGE_MAX, now_ms=NOW_MS)
    assert len(msgspec.json.encode(shown)) < REQUEST_BYTES_MAX * 3 // 4
    assert len(shown) >= PAGE_MAX // 4
    assert all(len(view.title) <= TITLE_LISTED_CHARS_MAX for view in shown)


@pytest.mark.parametrize("expires_at_ms", [10**18, 10**40, -(10**18)])
def test_a_gate_of_the_log_with_an_impossible_end_hides_no_other_and_ends(expires_at_ms: int):
    book = ApprovalBook()
    taken(book, 1, asked(1, expires_at_ms=expires_at_ms))
    taken(book, 2, asked(2, expires_at_ms=NOW_MS + 5))
    assert sorted(listed(book)) == ["apr-1", "apr-2"]
    assert "apr-1" in book.due(NOW_MS + APPROVAL_TIMEOUT_MAX_MS)


def test_only_the_last_of_those_that_are_closed_are_remembered():
    book = ApprovalBook()
    for number in range(CLOSED_KEPT_MAX + 5):
        facts = asked(number), ApprovalDenied("aka", 7, NOW_MS), ApprovalAnswered("denied", NOW_MS)
        taken(book, number + 1, *facts, approval_id=f"apr-{number}")
    assert len(book.page(run_id=None, everything=True, limit=10 * CLOSED_KEPT_MAX, now_ms=NOW_MS)) == CLOSED_KEPT_MAX
    assert listed(book, everything=True)[0] == f"apr-{CLOSED_KEPT_MAX + 4}"
    assert book.is_closed("apr-0")
