"""Nothing of the attack corpus passes, and each is refused with the code that says why."""

import msgspec
import pytest

from services.policy_gateway.decision.verdict import Allow, Deny
from tests.unit.policy_gateway.decision.verdicts import Call, corpus

ATTACKS = corpus("attacks.toml")


@pytest.mark.parametrize(("call", "code"), ATTACKS, ids=str)
def test_refuses_the_attack(call: Call, code: str) -> None:
    verdict = call.judged()
    assert isinstance(verdict, Deny), verdict
    assert (verdict.code, verdict.rule != "") == (code, True), verdict
    assert msgspec.json.decode(msgspec.json.encode(verdict.detail)) == verdict.detail


def test_the_corpus_is_large_and_nothing_of_it_passes() -> None:
    passed = [call for call, _ in ATTACKS if isinstance(call.judged(), Allow)]
    print(f"attacks that passed: {len(passed)} of {len(ATTACKS)}")
    assert len(ATTACKS) >= 150
    assert passed == []
