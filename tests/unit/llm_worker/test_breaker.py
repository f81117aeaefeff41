"""The laws of a breaker: five failures open it, one probe decides what comes next, and nobody else's fault counts."""

import dataclasses

import pytest

from contracts.breaker import BreakerCleared, BreakerClosed, BreakerFailed, BreakerOpened, BreakerProbed
from contracts.errors import Rejected
from services.llm_worker.breaker.breakers import aggregate_id
from services.llm_worker.breaker.decider import (
    BREAKER,
    FORGOTTEN_AFTER_MS,
    Abandon,
    Breaker,
    BreakerCommand,
    Enter,
    Fail,
    Reset,
    Succeed,
)
from services.runtime.decider import fold

FAIL = Fail("provider_error", "", 5, 60_000)
AT = 1_000_000


def after(*commands: BreakerCommand, at_ms: int = AT) -> Breaker:
    breaker = Breaker("m")
    for command in commands:
        breaker = fold(BREAKER, breaker, BREAKER.decide(command, breaker, at_ms))
    return breaker


def test_the_fifth_failure_in_a_row_opens_it():
    assert after(*[FAIL] * 4).status == "closed"
    breaker = after(*[FAIL] * 4)
    assert BREAKER.decide(FAIL, breaker, AT) == (
        BreakerFailed("m", AT, 5, "provider_error"),
        BreakerOpened("m", AT, AT + 60_000, "provider_error"),
    )


def test_an_answer_in_between_begins_the_count_anew():
    assert BREAKER.decide(Succeed(""), Breaker("m"), AT) == ()
    assert BREAKER.decide(Succeed(""), after(FAIL), AT) == (BreakerCleared("m", AT),)
    assert after(*[FAIL] * 4, Succeed(""), *[FAIL] * 4).status == "closed"


def test_a_provider_that_overran_is_left_alone_at_once():
    overran = dataclasses.replace(FAIL, code="provider_overran")
    assert after(overran).status == "open"


def test_failures_of_another_hour_do_not_add_up():
    breaker = after(*[FAIL] * 4)
    (event,) = BREAKER.decide(FAIL, breaker, AT + FORGOTTEN_AFTER_MS)
    assert event == BreakerFailed("m", AT + FORGOTTEN_AFTER_MS, 1, "provider_error")


def test_open_refuses_and_says_for_how_long():
    with pytest.raises(Rejected) as refused:
        BREAKER.decide(Enter("w:c", 1_000), after(*[FAIL] * 5), AT + 1_500)
    assert refused.value.code == "circuit_open"
    assert refused.value.detail["retry_after"] == 59
    assert refused.value.detail["retry_after_ms"] == 58_500
    assert refused.value.detail["last_failure"] == "provider_error"


def test_late_outcomes_of_calls_from_before_change_nothing():
    breaker = after(*[FAIL] * 5)
    assert BREAKER.decide(FAIL, breaker, AT) == ()
    assert BREAKER.decide(Succeed(""), breaker, AT) == ()


def half_open() -> Breaker:
    breaker = after(*[FAIL] * 5)
    (probed,) = BREAKER.decide(Enter("w:c", 1_000), breaker, AT + 60_000)
    assert probed == BreakerProbed("m", AT + 60_000, AT + 61_000, "w:c")
    return BREAKER.evolve(breaker, probed)


def test_one_probe_is_let_through_and_nobody_else():
    with pytest.raises(Rejected) as refused:
        BREAKER.decide(Enter("w:d", 1_000), half_open(), AT + 60_500)
    assert refused.value.detail["state"] == "half_open"
    assert refused.value.detail["retry_after"] == 1


def test_the_probe_alone_closes_or_opens_again():
    assert BREAKER.decide(Succeed("w:d"), half_open(), AT + 60_500) == ()
    assert BREAKER.decide(FAIL, half_open(), AT + 60_500) == ()
    assert BREAKER.decide(Succeed("w:c"), half_open(), AT + 60_500) == (BreakerClosed("m", AT + 60_500),)
    again = Fail("timeout", "w:c", 5, 60_000)
    assert BREAKER.decide(again, half_open(), AT + 60_500) == (
        BreakerOpened("m", AT + 60_500, AT + 120_500, "timeout"),
    )


def test_a_probe_of_a_dead_worker_is_replaced_and_a_stopped_one_makes_room():
    (event,) = BREAKER.decide(Enter("w:d", 1_000), half_open(), AT + 61_000)
    assert isinstance(event, BreakerProbed)
    (event,) = BREAKER.decide(Abandon("w:c"), half_open(), AT + 60_500)
    assert event == BreakerOpened("m", AT + 60_500, AT + 60_500, "provider_error")
    assert BREAKER.evolve(half_open(), event).refusal(AT + 60_500) is None


def test_a_person_closes_what_was_mended_and_what_was_counted_is_forgotten():
    reset = Reset("ann")
    opened = after(*[FAIL] * 5)
    probing = fold(BREAKER, opened, BREAKER.decide(Enter("p", 1_000), opened, AT + 60_000))
    assert probing.status == "half_open"
    assert BREAKER.decide(reset, opened, AT) == (BreakerClosed("m", AT, "ann"),)
    assert BREAKER.decide(reset, probing, AT) == (BreakerClosed("m", AT, "ann"),)
    assert after(*[FAIL] * 5, reset) == Breaker("m")
    assert BREAKER.decide(reset, Breaker("m"), AT) == ()
    assert BREAKER.decide(reset, after(FAIL), AT) == (BreakerCleared("m", AT, "ann"),)
    assert after(*[FAIL] * 4, reset, *[FAIL] * 4).status == "closed"


def test_the_newest_commit_alone_gives_the_state():
    breaker = Breaker("m")
    for command in [FAIL] * 5:
        newest = BREAKER.decide(command, breaker, AT)
        breaker = fold(BREAKER, breaker, newest)
        alone = fold(BREAKER, Breaker("m"), newest)
        assert (alone.status, alone.until_ms, alone.failures) == (breaker.status, breaker.until_ms, breaker.failures)


@pytest.mark.parametrize(("model", "token"), [("smollm2", "smollm2"), ("claude-sonnet-4.5", "claude-sonnet-4-5-")])
def test_a_model_has_one_token(model, token):
    assert aggregate_id(model).startswith(token)
    assert aggregate_id("a.b") != aggregate_id("a-b")
    assert aggregate_id("mock:fail=provider_error") != aggregate_id("mock:fail=timeout")
