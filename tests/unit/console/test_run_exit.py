"""The exit code of a command that watched a run."""

import pytest

from services.console.follow_run import exit_code
from services.console.run_board import Board


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        ("completed", None, 0),
        ("failed", {"code": "budget_exceeded"}, 6),
        ("failed", {"code": "epic_budget_exceeded"}, 6),
        ("failed", {"code": "provider_error"}, 1),
        ("cancelled", None, 1),
    ],
)
def test_a_budget_that_was_used_up_has_a_code_of_its_own(status, error, code):
    board = Board("r")
    board.status, board.error = status, error
    assert exit_code(board) == code
