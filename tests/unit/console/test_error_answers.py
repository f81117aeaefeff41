"""`htdag conformance errors`: what it takes for an error of the contract, and what it asks; the README test runs it."""

import pytest

from contracts.errors import CATALOGUE, failure
from services.console.conformance.error_answers import _judged, _unasked
from services.console.conformance.wrong_requests import FAILING, WRONG, after_run


def test_an_error_of_the_one_shape_under_its_code_passes():
    assert _judged("cycle", failure("cycle", path=["a", "a"]), "here") == ("cycle", "pass", "here")


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (None, "no error"),
        ("cycle", "no error"),
        ({"class": "bad_graph", "code": "cycle"}, "message"),
        ({**failure("cycle"), "code": "circle"}, "circle"),
        ({**failure("cycle"), "class": "lua"}, "its class is lua"),
        ({**failure("cycle"), "hint": 3}, "string"),
        (failure("bad_id"), "bad_id instead"),
    ],
)
def test_anything_else_fails_and_says_what_was_seen(answer, seen):
    point = _judged("cycle", answer, "here")
    assert point.outcome == "fail"
    assert seen in point.seen


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_has_the_published_shape(code):
    assert _unasked(code).outcome == "note"


def test_each_code_is_asked_for_once():
    asked = [wrong.code for wrong in (*WRONG, *after_run("r"))] + [str(task["id"]) for task in FAILING]
    assert len(asked) == len(set(asked)) > 55
    assert set(asked) <= set(CATALOGUE)
