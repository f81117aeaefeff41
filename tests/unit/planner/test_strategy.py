"""Strategy versions: what a put, an activation and a way back lead to."""

import msgspec
import pytest

from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.errors import Rejected
from contracts.strategy import (
    StrategyActivated,
    StrategyBody,
    StrategyDeactivated,
    StrategyEvent,
    StrategyPut,
)
from services.planner.strategy import decider
from services.planner.strategy.decider import (
    STRATEGY,
    ActivateStrategy,
    PutStrategy,
    RollBackStrategy,
    SeedStrategy,
    digest_of,
)
from services.planner.strategy.state import TRAIL_MAX, Strategy
from services.runtime.decider import fold

NOW = 1_790_000_000_000
ONE, TWO = {"decomposition": "return 1"}, {"completion": "return 2"}


def put(version: int, scripts: dict[str, str], pattern: str = ".*") -> StrategyPut:
    body = StrategyBody(scripts=scripts, pattern=pattern)
    return StrategyPut(name="secure", version=version, body=body, digest=digest_of(body))


def given(*events: StrategyEvent) -> Strategy:
    return fold(STRATEGY, STRATEGY.initial("secure"), events)


def when(state: Strategy, *commands) -> list[StrategyEvent]:
    """Judge the commands one after the other, each on what the ones before led to."""
    events: list[StrategyEvent] = []
    for command in commands:
        made = STRATEGY.decide(command, state, NOW)
        state = fold(STRATEGY, state, made)
        events += made
    return events


def refused(state: Strategy, command) -> Rejected:
    with pytest.raises(Rejected) as error:
        STRATEGY.decide(command, state, NOW)
    return error.value


def test_the_first_put_is_version_one():
    assert when(given(), PutStrategy("secure", ONE)) == [put(1, ONE)]


def test_the_same_content_again_changes_nothing():
    assert when(given(put(1, ONE)), PutStrategy("secure", ONE)) == []
    assert when(given(put(1, ONE)), PutStrategy("secure", {})) == []


def test_a_patch_is_merged_over_the_active_version():
    assert when(given(put(1, ONE)), PutStrategy("secure", TWO)) == [put(2, {**ONE, **TWO})]
    assert when(given(put(1, ONE)), PutStrategy("secure", {}, pattern="auth")) == [put(2, ONE, "auth")]


def test_a_patch_is_merged_over_the_version_that_was_gone_back_to():
    state = given(put(1, ONE), put(2, {**ONE, **TWO}), StrategyActivated(name="secure", version=1, reason="rollback"))
    assert when(state, PutStrategy("secure", {}, pattern="x")) == [put(3, ONE, "x")]


def test_a_first_put_without_scripts_is_refused():
    assert refused(given(), PutStrategy("secure", {})).code == "bad_request"


def test_seeding_stores_only_what_was_never_stored():
    body = StrategyBody(scripts=ONE)
    assert when(given(), SeedStrategy("secure", body)) == [put(1, ONE)]
    assert when(given(put(1, TWO)), SeedStrategy("secure", body)) == []
    gone = given(put(1, TWO), StrategyDeactivated(name="secure", reason="rollback"))
    assert when(gone, SeedStrategy("secure", body)) == []


def test_rollback_walks_back_version_by_version_and_then_deactivates():
    state = given(put(1, ONE), put(2, TWO), put(3, ONE))
    back = RollBackStrategy("secure")
    assert when(state, back, back, back) == [
        StrategyActivated(name="secure", version=2, reason="rollback"),
        StrategyActivated(name="secure", version=1, reason="rollback"),
        StrategyDeactivated(name="secure", reason="rollback"),
    ]
    assert state.active == 0
    assert refused(state, back).code == "conflict"


def test_rollback_undoes_an_activation():
    state = given(put(1, ONE), put(2, TWO), put(3, ONE))
    events = when(state, ActivateStrategy("secure", 1), RollBackStrategy("secure"))
    assert [event.version for event in events] == [1, 3]
    assert state.active == 3


def test_activation_of_what_is_active_changes_nothing_and_of_what_is_not_there_is_refused():
    state = given(put(1, ONE), put(2, TWO))
    assert when(state, ActivateStrategy("secure", 2), ActivateStrategy("secure", None)) == []
    assert refused(state, ActivateStrategy("secure", 3)).code == "strategy_not_found"
    assert refused(given(), RollBackStrategy("secure")).code == "strategy_not_found"
    assert refused(given(), ActivateStrategy("secure", None)).code == "strategy_not_found"


def test_the_number_of_versions_is_bounded(monkeypatch):
    monkeypatch.setattr(decider, "VERSIONS_MAX", 1)
    assert refused(given(put(1, ONE)), PutStrategy("secure", TWO)).code == "too_large"


def test_the_trail_is_bounded_and_the_newest_part_stays():
    state = given(*(put(1 + n, ONE if n % 2 else TWO) for n in range(TRAIL_MAX + 5)))
    assert len(state.trail) == TRAIL_MAX
    assert state.active == TRAIL_MAX + 5


def test_folding_from_the_wire_equals_folding_in_memory():
    codec: CommitCodec[StrategyEvent] = CommitCodec(StrategyEvent)
    events: list[StrategyEvent] = [
        put(1, ONE), put(2, TWO), StrategyActivated(name="secure", version=1, reason="activate"),
    ]  # fmt: skip
    data = codec.encode(Commit(at="", by="", cause="", corr="", events=events))
    assert given(*codec.decode(data).events) == given(*events)


def test_an_inactive_strategy_shows_version_zero():
    view = given(put(1, ONE), StrategyDeactivated(name="secure")).view()
    assert (view.version, view.versions, view.scripts) == (0, [1], ["decomposition"])


def test_a_digest_is_that_of_the_content():
    body = StrategyBody(scripts={"a": "1", "b": "2"})
    assert digest_of(body) == digest_of(StrategyBody(scripts={"b": "2", "a": "1"}))
    assert digest_of(body) != digest_of(msgspec.structs.replace(body, priority=1))
