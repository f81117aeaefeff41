"""A live replay says whether it was paid, also when it failed in the middle."""

import pytest

from contracts.llm import was_paid


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        ({"output": "hi", "usage": {"total_tokens": 7}}, True),
        ({"error": {"code": "timeout", "usage": {"total_tokens": 7}, "cost_usd_micros": None}}, True),
        ({"error": {"code": "budget_exceeded"}}, False),
    ],
)
def test_paid_is_what_its_provider_began_to_answer(answer, paid):
    assert was_paid(answer) is paid
