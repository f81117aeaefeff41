"""The figures of a replay count only when it reaches what was recorded."""

import pytest

from contracts.errors import Rejected
from contracts.run_proofs import ReplayReport
from services.console.bench.runs import must_be_equal


def report(digest: str, recorded: str) -> ReplayReport:
    return ReplayReport("r1", 5, 2, 0, digest, recorded, digest == recorded, "completed", order_ok=True)


def test_a_replay_that_reaches_the_recorded_state_is_measured():
    must_be_equal([report("a", "a"), report("a", "a")])


def test_one_that_leads_elsewhere_is_refused_and_says_which_states():
    with pytest.raises(Rejected) as refused:
        must_be_equal([report("a", "a"), report("b", "a")])
    error = refused.value.to_wire()
    assert (error["code"], error["class"]) == ("replay_differs", "internal")
    assert (error["run_id"], error["digest"], error["recorded_digest"]) == ("r1", "b", "a")
