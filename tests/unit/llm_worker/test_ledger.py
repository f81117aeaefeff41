"""The ledger, sentence by sentence: who may begin, who waits, who is refused, and that each call is paid once."""

from typing import Any

import pytest

from contracts.codec import CommitCodec
from contracts.ledger import Budget, LedgerEvent, LlmPaid, LlmReleased, LlmReserved, LlmTakenOver
from services.llm_worker.ledger import snapshot, state
from services.llm_worker.ledger.decider import LEDGER, Later, Release, Reserve, decide
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.payment import Pay
from services.llm_worker.ledger.state import DAY_MS, Held, Ledger, Spent, day_of, evolve
from tests.support.spec import NOW_MS, Spec

CODEC: CommitCodec[LedgerEvent] = CommitCodec(LedgerEvent)
TODAY = day_of(NOW_MS)
DOLLAR = 1_000_000
DAY_100 = Limits(usd_micros=100 * DOLLAR)


def same(ledger: Ledger) -> Any:
    return (ledger.open, ledger.spent, ledger.held, ledger.live, ledger.grants, ledger.closed)


def ledger() -> Spec:
    return Spec(LEDGER, "all", codec=CODEC, same=same)


def reserve(
    corr_id: str = "c1", usd: int | None = 0, tokens: int = 100, limits: Limits = DAY_100, **more: Any
) -> Reserve:
    return Reserve(
        corr_id, more.pop("worker_id", "w1"), more.pop("request_seq", 1), "mock", tokens, usd, 40_000, limits, **more
    )


def pay(corr_id: str = "c1", cost: int | None = 0, tokens: int = 20, **more: Any) -> Pay:
    return Pay(corr_id, "w1", more.pop("request_seq", 1), "mock", "mock", tokens, 0, cost, **more)


def test_a_call_is_reserved_with_its_worst_case_before_it_begins():
    ledger().when(reserve(usd=60 * DOLLAR)).then(
        LlmReserved("c1", NOW_MS, "w1", "mock", 100, 60 * DOLLAR, 1, NOW_MS + 40_000)
    )


def test_and_paid_with_what_it_cost():
    spec = ledger().after(reserve(usd=60 * DOLLAR))
    spec.when(pay(cost=59 * DOLLAR)).then(LlmPaid("c1", NOW_MS, "w1", TODAY, "mock", "mock", 20, 0, 59 * DOLLAR, 1))
    assert spec.state.spent[f"day/{TODAY}"] == Spent(1, 20, 59 * DOLLAR, 0)
    assert not spec.state.open
    assert not spec.state.held


def test_a_bill_beyond_the_reservation_is_paid_as_reserved_and_the_rest_is_a_dispute():
    spec = ledger().after(reserve(usd=60 * DOLLAR))
    spec.when(pay(cost=5_000 * DOLLAR, tokens=9_000_000)).then(
        LlmPaid(
            "c1", NOW_MS, "w1", TODAY, "mock", "mock", 100, 0, 60 * DOLLAR, 1,
            disputed_tokens=8_999_900, disputed_usd_micros=4_940 * DOLLAR,
        )
    )  # fmt: skip
    assert spec.state.spent[f"day/{TODAY}"] == Spent(1, 100, 60 * DOLLAR, 0)


def test_the_day_refuses_what_it_cannot_pay():
    spec = ledger().after(reserve(usd=60 * DOLLAR), pay(cost=60 * DOLLAR))
    spec.when(reserve("c2", usd=60 * DOLLAR)).then_rejected(
        "budget_exceeded", scope="day", limit=100, spent=60, reserved=0, needed=60, resets_at="2026-09-22T00:00:00Z"
    )


def test_the_next_day_has_its_own_budget():
    spec = ledger().after(reserve(usd=60 * DOLLAR), pay(cost=60 * DOLLAR)).later(DAY_MS)
    assert spec.when(reserve("c2", usd=60 * DOLLAR)).types() == ["LlmReserved"]


def test_a_call_over_midnight_counts_for_the_day_in_which_it_was_reserved():
    spec = ledger().after(reserve(usd=60 * DOLLAR)).later(DAY_MS).after(pay(cost=60 * DOLLAR))
    assert spec.state.spent[f"day/{TODAY}"].usd_micros == 60 * DOLLAR
    assert f"day/{day_of(NOW_MS + DAY_MS)}" not in spec.state.spent


def test_what_only_a_call_under_way_stands_against_waits_for_its_end():
    spec = ledger().after(reserve(usd=60 * DOLLAR))
    with pytest.raises(Later) as put_off:
        decide(reserve("c2", usd=60 * DOLLAR), spec.state, NOW_MS)
    assert put_off.value.code == "budget_exceeded"
    assert put_off.value.detail["reserved"] == 60
    assert spec.after(Release("c1", "w1", "provider_error")).when(reserve("c2", usd=60 * DOLLAR)).types()


def test_an_unknown_price_is_refused_while_money_is_limited():
    ledger().when(reserve(usd=None)).then_rejected("price_unknown", model="mock")
    ledger().when(reserve(usd=None, limits=Limits(), budgets=(Budget("epic", "e", 1),))).then_rejected("price_unknown")


@pytest.mark.parametrize("wish", [{"allow_unpriced": True}, {"limits": Limits(concurrent=10)}])
def test_and_counted_in_tokens_where_it_is_allowed_or_money_is_not_limited(wish):
    spec = ledger().after(reserve(usd=None, **wish), pay(cost=None))
    assert spec.state.spent[f"day/{TODAY}"] == Spent(1, 20, 0, 1)


def test_a_cost_that_turns_out_unknown_is_charged_as_it_was_reserved():
    spec = ledger().after(reserve(usd=5)).after(pay(cost=None))
    assert spec.history[-1].cost_usd_micros is None
    assert spec.state.spent[f"day/{TODAY}"] == Spent(1, 20, 5, 1)


@pytest.mark.parametrize(
    ("kind", "code"), [("epic", "epic_budget_exceeded"), ("run", "budget_exceeded"), ("task", "budget_exceeded")]
)
def test_budgets_of_task_run_and_epic_hold_over_all_their_calls(kind, code):
    budget = Budget(kind, "x", usd_micros=50_000)
    spec = ledger()
    for number in range(5):
        spec.after(reserve(f"c{number}", usd=10_000, budgets=(budget,)), pay(f"c{number}", cost=10_000))
    detail = {"scope": kind, "id": "x", "budget_usd": 0.05, "spent": 0.05, "reserved": 0, "needed": 0.01}
    spec.when(reserve("c5", usd=10_000, budgets=(budget,))).then_rejected(code, **detail)
    more = Budget(kind, "x", usd_micros=200_000)
    assert spec.when(reserve("c5", usd=10_000, budgets=(more,))).types() == ["LlmReserved"]


def test_tokens_are_a_budget_too():
    budget = Budget("run", "x", tokens=150)
    spec = ledger().after(reserve(tokens=100, budgets=(budget,)), pay(tokens=100))
    spec.when(reserve("c2", budgets=(budget,))).then_rejected("budget_exceeded", unit="tokens", spent=100, needed=100)


def test_no_more_calls_at_once_than_allowed():
    limits = Limits(concurrent=2)
    spec = ledger().after(reserve("a", limits=limits), reserve("b", limits=limits))
    with pytest.raises(Later) as put_off:
        decide(reserve("c", limits=limits), spec.state, NOW_MS)
    assert (put_off.value.code, put_off.value.at_ms) == ("provider_overloaded", None)


def test_the_minute_slides():
    limits = Limits(per_minute=2)
    spec = ledger().after(reserve("a", limits=limits), pay("a")).later(30_000)
    spec.after(reserve("b", limits=limits), pay("b")).later(29_999)
    with pytest.raises(Later) as put_off:
        decide(reserve("c", limits=limits), spec.state, spec.now_ms)
    assert put_off.value.code == "rate_limit_exceeded"
    assert put_off.value.at_ms == NOW_MS + 60_000
    spec.later(1).after(reserve("c", limits=limits), pay("c"))
    with pytest.raises(Later) as again:
        decide(reserve("d", limits=limits), spec.state, spec.now_ms)
    assert again.value.at_ms == NOW_MS + 90_000


def test_a_model_has_limits_of_its_own():
    spec = ledger().after(reserve("a", model_limits=Limits(concurrent=1)))
    with pytest.raises(Later):
        decide(reserve("b", model_limits=Limits(concurrent=1)), spec.state, NOW_MS)
    other = reserve("b", model_limits=Limits(concurrent=1))._replace(model="other")
    assert decide(other, spec.state, NOW_MS)


def test_the_same_call_is_reserved_once():
    ledger().after(reserve()).when(reserve()).then_nothing()


def test_another_worker_takes_over_what_a_dead_one_held():
    spec = ledger().after(reserve(usd=60 * DOLLAR))
    spec.when(reserve(usd=60 * DOLLAR, worker_id="w2")).then(LlmTakenOver("c1", NOW_MS, "w2", 1, NOW_MS + 40_000))
    assert spec.state.held[f"day/{TODAY}"].usd_micros == 60 * DOLLAR
    assert len(spec.state.grants[""]) == 2  # the provider was asked twice


def test_another_model_that_answers_instead_is_held_for_its_own_price():
    spec = ledger().after(reserve(usd=60 * DOLLAR, limits=DAY_100._replace(concurrent=1)))
    instead = reserve(usd=90 * DOLLAR, limits=DAY_100._replace(concurrent=1))._replace(model="other")
    assert spec.when(instead).types() == ["LlmReleased", "LlmReserved"]
    assert spec.state.held[f"day/{TODAY}"].usd_micros == 90 * DOLLAR
    spec.when(instead._replace(model="dear", usd_micros=101 * DOLLAR)).then_rejected("budget_exceeded", reserved=0)
    assert spec.state.open["c1"].model == "other"


def test_a_call_is_paid_once_however_often_it_is_said():
    spec = ledger().after(reserve(), pay(cost=5))
    spec.when(pay(cost=5)).then_nothing()
    spec.when(Release("c1", "w2", "orphaned")).then_nothing()


def test_what_was_released_is_not_paid_out_of_nothing():
    spec = ledger().after(reserve(usd=5))
    spec.when(Release("c1", "w2", "orphaned", holder="w1")).then(LlmReleased("c1", NOW_MS, "w2", "orphaned"))
    spec.when(Release("c1", "w2", "orphaned", holder="w1")).then_nothing()


def test_an_orphan_is_not_released_from_under_its_new_worker():
    spec = ledger().after(reserve(), reserve(worker_id="w2"))
    spec.when(Release("c1", "w3", "orphaned", holder="w1")).then_nothing()


def test_what_was_held_for_another_request_of_the_same_call_stays():
    spec = ledger().after(reserve(), reserve(worker_id="w2", request_seq=2))
    spec.when(Release("c1", "w3", "timeout", request_seq=1)).then_nothing()
    spec.when(Release("c1", "w3", "timeout", request_seq=2)).then(LlmReleased("c1", NOW_MS, "w3", "timeout"))


def test_a_paid_request_that_comes_again_pays_nothing_of_another_request_of_the_same_call():
    spec = ledger().after(reserve(usd=60), pay(cost=50), reserve(usd=60, worker_id="w2", request_seq=2))
    spec.when(pay(cost=50)).then_nothing()


def test_a_late_payment_leaves_what_is_held_for_another_request_of_the_same_call():
    spec = ledger().after(reserve(usd=60, worker_id="w2", request_seq=2))
    assert spec.when(pay(cost=50)).types() == ["LlmPaid"]
    assert spec.state.open["c1"].request_seq == 2
    assert (spec.state.spent[f"day/{TODAY}"], spec.state.held[f"day/{TODAY}"]) == (Spent(1, 20, 50), Held(100, 60))
    assert spec.when(pay(cost=40, request_seq=2)).types() == ["LlmPaid"]
    assert (spec.state.spent[f"day/{TODAY}"], spec.state.held) == (Spent(2, 40, 90), {})


def test_without_limits_only_the_payment_is_written():
    spec = ledger()
    spec.when(pay(cost=7, run_id="r", budgets=("epic/e",))).then(
        LlmPaid("c1", NOW_MS, "w1", TODAY, "mock", "mock", 20, 0, 7, 1, run_id="r", budgets=["epic/e"])
    )
    spec.when(pay(cost=7)).then_nothing()
    assert spec.state.spent["epic/e"].usd_micros == 7


def test_a_snapshot_is_the_state():
    spec = ledger().after(reserve(usd=3), reserve("c2", usd=None, allow_unpriced=True), pay(cost=2))
    assert same(snapshot.restore(snapshot.dump(spec.state))) == same(spec.state)


def test_the_budget_of_a_run_that_goes_on_is_not_forgotten_for_younger_ones(monkeypatch):
    monkeypatch.setattr(state, "BUDGETS_MAX", 10)
    now = Ledger()
    for number in range(20):
        for run in ("old", f"r{number}"):
            bill = pay(f"c-{run}-{number}", cost=1, request_seq=number, budgets=(f"run/{run}",))
            for event in decide(bill, now, NOW_MS):
                evolve(now, event)
        state.trim(now, NOW_MS)
    assert now.spent["run/old"].usd_micros == 20
    assert len(now.spent) <= 10


def test_what_was_not_stored_is_taken_back():
    spec = ledger().after(reserve(usd=3), reserve("c2", usd=4))
    now = spec.state
    before = snapshot.dump(now)
    now.undo = []
    for command in (pay(cost=2), reserve("c3", usd=9), Release("c2", "w1", "x"), pay("c9", cost=1, request_seq=9)):
        for event in decide(command, now, NOW_MS + 5):
            evolve(now, event)
    assert snapshot.dump(now) != before
    now.take_back()
    assert same(snapshot.restore(before)) == same(now)
