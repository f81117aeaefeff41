"""Honest work is not refused: the corpus of everyday calls."""

import pytest

from services.policy_gateway.decision.verdict import Deny
from tests.unit.policy_gateway.decision.verdicts import Call, corpus

EVERYDAY = [call for call, _ in corpus("everyday.toml")]


@pytest.mark.parametrize("call", EVERYDAY, ids=str)
def test_allows_everyday_work(call: Call) -> None:
    verdict = call.judged()
    assert not isinstance(verdict, Deny), verdict


def test_the_corpus_is_large_and_its_false_refusal_rate_is_nought() -> None:
    refused = [call for call in EVERYDAY if isinstance(call.judged(), Deny)]
    print(f"false refusals: {len(refused)} of {len(EVERYDAY)} everyday calls")
    assert len(EVERYDAY) >= 200
    assert {call.role for call in EVERYDAY} >= {"coder", "tester", "critic", "researcher", "architect", "admin"}
    assert refused == []
