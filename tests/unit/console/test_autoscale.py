"""When a pool grows and shrinks: while calls wait, with a pause, and never for a short quiet."""

import pytest

from contracts.errors import Rejected
from services.console.supervision.autoscale import BUSY_S, IDLE_S, PAUSE_S, Autoscaler, Signal
from services.console.supervision.scale import Bounds, copy_name, expanded, free_name, parse, service_of

ONE_TO_THREE = Bounds(1, 3)
BUSY, QUIET, WORKING = Signal(5, 1_000, 0), Signal(0, 0, 1), Signal(0, 0, 0)


def test_it_grows_one_by_one_while_calls_wait_and_stops_at_the_bound():
    scaler, copies, grew = Autoscaler(), 1, []
    for tick in range(200):
        step = scaler.decide(ONE_TO_THREE, copies, BUSY, 100 + tick / 10)
        copies += step
        if step:
            grew.append(tick / 10)
    assert copies == 3
    assert grew[0] >= BUSY_S
    assert grew[1] - grew[0] >= PAUSE_S


def test_a_short_wait_is_no_reason():
    scaler = Autoscaler()
    assert {scaler.decide(ONE_TO_THREE, 1, Signal(9, 100, 0), 100 + tick) for tick in range(60)} == {0}
    flicker = Autoscaler()
    steps = [flicker.decide(ONE_TO_THREE, 1, (BUSY, WORKING)[tick % 2], 100 + tick / 2) for tick in range(60)]
    assert set(steps) == {0}


def test_it_shrinks_after_a_long_quiet_only_and_not_below_the_bound():
    scaler, copies, left = Autoscaler(), 3, []
    for tick in range(200):
        step = scaler.decide(ONE_TO_THREE, copies, QUIET, 100 + tick)
        copies += step
        if step:
            left.append(tick)
    assert copies == 1
    assert left[0] >= IDLE_S
    assert left[1] - left[0] >= IDLE_S
    # Nobody idle: everybody is needed.
    busy = Autoscaler()
    assert {busy.decide(ONE_TO_THREE, 3, WORKING, 100 + tick) for tick in range(200)} == {0}


def test_what_is_outside_of_the_bounds_is_mended_at_once():
    assert Autoscaler().decide(Bounds(3, 3), 1, WORKING, 0) == 1
    assert Autoscaler().decide(Bounds(1, 1), 3, BUSY, 0) == -1


def test_wishes_are_read():
    assert parse(["llm-worker=1..4", "executor=2"]) == {"llm-worker": Bounds(1, 4), "executor": Bounds(2, 2)}
    assert parse(["llm-worker=3,executor=2"])["llm-worker"] == Bounds(3, 3)


@pytest.mark.parametrize(
    "wish", ["", "llm-worker", "llm-worker=0", "llm-worker=9", "llm-worker=4..2", "planner=2", "executor=1..2", "x=y"]
)
def test_what_is_no_wish_is_refused(wish):
    with pytest.raises(Rejected, match="bad_request"):
        parse([wish])


def test_copies_have_names():
    names = expanded(("planner", "llm-worker"), {"llm-worker": Bounds(3, 4)})
    assert names == ["planner", "llm-worker", "llm-worker-2", "llm-worker-3"]
    assert [service_of(name) for name in names] == ["planner", "llm-worker", "llm-worker", "llm-worker"]
    assert free_name("llm-worker", ["llm-worker", "llm-worker-3"]) == copy_name("llm-worker", 2)
    assert free_name("executor", [copy_name("executor", number) for number in range(1, 9)]) is None
