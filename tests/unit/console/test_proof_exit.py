"""A conversation at the terminal ends with the exit code of what was refused, from the one table of codes."""

from typing import Any

import pytest

from contracts.errors import CATALOGUE, CONFLICT, DENIED, NOT_FOUND, OK, RETRY_LATER, TIMED_OUT
from services.console.options import DEFAULTS
from services.console.proof import report

EXPECTED = {
    "approval_not_found": NOT_FOUND,
    "invalid_code": DENIED,
    "code_reused": DENIED,
    "locked": DENIED,
    "not_an_approver": DENIED,
    "agent_cannot_approve": DENIED,
    "approval_denied": DENIED,
    "rate_limited": RETRY_LATER,
    "approval_stale": CONFLICT,
    "approval_granted": CONFLICT,
    "approval_withdrawn": CONFLICT,
    "approval_expired": TIMED_OUT,
}


def said(state: str, code: str | None) -> dict[str, Any]:
    return {"state": state, "say": "words", "code": code, "retry_after": None, "gates": []}


@pytest.mark.parametrize(("code", "exit_code"), EXPECTED.items())
def test_a_refusal_ends_with_the_exit_code_of_its_code(code: str, exit_code: int):
    assert report(DEFAULTS, said("refused", code)) == exit_code == CATALOGUE[code].exit_code


def test_a_proof_is_ok():
    assert report(DEFAULTS, said("confirmed", None)) == OK


def test_a_release_of_several_gates_tells_of_the_one_that_was_not_released():
    assert report(DEFAULTS, said("confirmed", "approval_withdrawn")) == CONFLICT
