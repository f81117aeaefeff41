"""Strategy patterns find what the standard module finds, and never take long."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from services.planner.pattern import PATTERN_CHARS_MAX, TEXT_CHARS_MAX, Pattern

_ATOMS = st.sampled_from(["a", "B", "c", ".", r"\w", r"\d", r"\s", r"\b", "^", "$", "[a-c]", "[^ab]", r"[\d_x]", "-"])


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{0,2}", "{2}", "{1,}"])).map(lambda p: f"(?:x{p[0]}){p[1]}"),
    )


_PATTERNS = st.recursive(_ATOMS, _extend, max_leaves=6)
_TEXTS = st.text(alphabet="aAbBcCxX1_ -", max_size=12)


@given(_PATTERNS, _TEXTS)
def test_finds_what_the_standard_module_finds(pattern: str, text: str) -> None:
    assert Pattern(pattern).search(text) == (re.search(pattern, text, re.IGNORECASE) is not None)


@given(st.text(alphabet="ab|()[]*+?{}0,1\\^$.-wb", max_size=12))
def test_refuses_or_accepts_every_text_with_a_code(pattern: str) -> None:
    refused = _refusal(pattern)
    assert refused is None or (refused.code, refused.detail["field"]) == ("bad_request", "pattern")


def _refusal(pattern: str) -> Rejected | None:
    try:
        Pattern(pattern).search("abab 01")
    except Rejected as error:
        return error
    return None


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(a*)*b", "a*a*a*a*a*a*b", "(.*)(.*)(.*)(.*)[^a]b", "(a|b)*a(a|b){150}c"]
)
def test_reads_each_character_once_where_others_hang(pattern: str) -> None:
    compiled = Pattern(pattern)
    started_s = time.perf_counter()
    assert not compiled.search("a" * TEXT_CHARS_MAX)
    assert time.perf_counter() - started_s < 5.0


@pytest.mark.parametrize(
    ("pattern", "position"),
    [("a(", 1), ("a)", 1), ("[a", 0), ("*a", 0), ("a**", 2), ("a{300}", 1), (r"(a)\1", 3), ("(?=a)", 0)],
)
def test_says_where_a_pattern_is_malformed(pattern: str, position: int) -> None:
    with pytest.raises(Rejected) as refused:
        Pattern(pattern)
    assert refused.value.code == "bad_request"
    assert refused.value.detail["position"] >= position


def test_refuses_patterns_that_are_too_long_or_too_complex() -> None:
    for pattern in ("a" * (PATTERN_CHARS_MAX + 1), "((a{200}){200}){200}"):
        with pytest.raises(Rejected):
            Pattern(pattern)


def test_the_pattern_of_the_seed_story_matches() -> None:
    secure = Pattern("(implement|build|create).*(auth|security|payment)")
    assert secure.search("Build user authentication with JWT")
    assert not secure.search("Draft a poem")
    assert Pattern(".*").search("")
