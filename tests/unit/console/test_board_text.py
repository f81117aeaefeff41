"""The board in words."""

import pytest

from contracts import run as events
from contracts.errors import failure
from contracts.llm import Usage
from contracts.run_gates import TaskApprovalRequested, TaskApproved
from contracts.task import GroupNode, TaskSpec
from services.console.board_text import describe, rows_of, shorten, summary, tree_order, tree_text
from services.console.run_board import Board, take

AT = 1_790_000_000_000


def plain(text: str, _: str) -> str:
    return text


def board_of(*story) -> Board:
    board = Board("r1")
    for step, event in enumerate(story):
        take(board, event, AT + step * 1000)
    return board


def started(*specs: TaskSpec) -> Board:
    return board_of(events.RunCreated("r1", AT, goal="Build it"), events.TasksAdded(list(specs)))


def test_the_last_line_has_the_words_of_the_seed():
    board = started(TaskSpec("a"))
    take(board, events.TaskStarted("a", 1, AT), AT)
    take(board, events.LlmAnswered("a", 1, "llm-1", "c", usage=Usage(1000, 420, 1420), cost_usd_micros=4300), AT)
    take(board, events.TaskCompleted("a", 1), AT)
    assert summary(board) == "completed 1  failed 0  mutations_applied []  tokens 1420  cost $0.0043"


def test_an_unknown_price_is_said():
    board = started(TaskSpec("a"))
    take(board, events.LlmAnswered("a", 1, "llm-1", "c", usage=Usage(1, 1, 2)), AT)
    assert summary(board).endswith("cost $0.0000 + unknown")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (events.TaskStarted("a", 1, AT), "task a in_progress"),
        (events.TaskStarted("a", 2, AT), "task a in_progress  attempt 2"),
        (events.TaskBlocked("a", "z"), "task a blocked  blocked by z"),
        (events.TaskReworked("a", 1, 1, ["Coverage below 80%"]), "task a rework 1  Coverage below 80%"),
        (events.TaskReset("a"), "task a pending  again"),
        (events.RunEnded("completed", {}, "d"), "run r1 completed"),
        (events.RunCancelRequested("enough"), "run r1 cancel requested  enough"),
        (events.TaskReworked("a", 1, 1, ["one\ntask b approved"]), "task a rework 1  one task b approved"),
        (events.RunCancelRequested("no\ntask b approved"), "run r1 cancel requested  no task b approved"),
        (
            events.TaskFailed("a", 1, {"code": "lua_error", "message": "m", "hint": "do\nthis"}),
            "task a failed  lua_error: m (do this)",
        ),
        (events.TaskFailed("a", 1, {"code": "timeout", "message": "late"}), "task a failed  timeout: late"),
        (
            events.TaskFailed("a", 1, failure("approval_denied", user="aka", reason="not on a \x1bFriday")),
            "task a failed  approval_denied: a human denied this action: not on a \\u001bFriday",
        ),
    ],
)
def test_one_line_per_event(event, line):
    board = started(TaskSpec("a"))
    take(board, event, 0)
    assert describe(board, event) == line


def test_events_for_machines_are_not_printed():
    board = started(TaskSpec("a"))
    assert describe(board, events.LlmAwaited("a", "c", AT)) is None
    assert describe(board, events.LlmSettled("a", "c")) is None


def test_the_tree_shows_children_indented_and_what_a_task_waits_for():
    text = tree_text(
        started(TaskSpec("root", node=GroupNode()), TaskSpec("a", parent="root"), TaskSpec("b", depends_on=["a"])),
        AT,
        plain,
    )
    lines = text.splitlines()
    assert lines[2].startswith("  ○ root")
    assert lines[3].startswith("    ○ a")
    assert lines[4] == "  ○ b  pending  ← a"


def test_streamed_text_stands_below_its_task():
    board = started(TaskSpec("a"))
    take(board, events.TaskStarted("a", 1, AT), AT)
    board.tasks["a"].tail = "thinking\nabout it"
    assert "thinking about it" in tree_text(board, AT, plain)


def test_a_chain_of_parents_is_walked_without_recursion():
    specs = [TaskSpec("t0")] + [TaskSpec(f"t{n}", parent=f"t{n - 1}") for n in range(1, 3000)]
    assert max(depth for depth, _ in tree_order(started(*specs))) == 2999


def test_a_big_run_shows_what_matters_now():
    board = started(*[TaskSpec(f"t{n}") for n in range(500)])
    take(board, events.TaskStarted("t400", 1, AT), AT)
    take(board, events.TaskFailed("t300", 1, {"code": "timeout"}), AT)
    rows, hidden = rows_of(board, 10)
    assert {"t400", "t300"} <= {task.id for _, task in rows}
    assert (len(rows), hidden) == (10, 490)
    assert "and 490 more tasks" in tree_text(board, AT, plain, 10)


def test_long_text_is_cut_to_one_line():
    assert shorten("a\n  b") == "a b"
    assert len(shorten("x" * 500)) == 60


def test_the_verdict_of_the_gate_is_a_line():
    board = started(TaskSpec("spec"))
    assert describe(board, events.TaskJudged("spec", 1, "completed", 0.95)) == "task spec judged completed 0.95"
    again = events.TaskJudged("spec", 1, "needs_rework", 0.4, reasoning="no\ntests")
    assert describe(board, again) == "task spec judged needs_rework 0.40  no tests"


def test_an_error_says_what_to_do():
    board = started(TaskSpec("a"))
    failed = events.TaskFailed("a", 1, {"code": "unknown_model", "message": "no such model: x", "hint": "look"})
    take(board, failed, AT)
    assert "unknown_model: no such model: x (look)" in (describe(board, failed) or "")


def test_a_task_that_waits_for_a_human_says_how_to_release_it():
    board = started(TaskSpec("deploy", role="admin"))
    asked = TaskApprovalRequested("deploy", 1, "apr-7", "d", AT)
    take(board, asked, AT)
    assert describe(board, asked) == "task deploy waiting_approval  htdag approvals grant apr-7"
    assert "htdag approvals grant apr-7" in tree_text(board, AT, plain)
    approved = TaskApproved("deploy", 1, "apr-7", "d", "aka", 7, AT)
    take(board, approved, AT)
    assert describe(board, approved) == "task deploy approved by aka"
    assert "approvals" not in tree_text(board, AT, plain)
    assert (board.counts["waiting_approval"], board.counts["pending"]) == (0, 1)
