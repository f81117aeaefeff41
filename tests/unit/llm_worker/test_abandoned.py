"""Askings that nobody heard the answer of: they stay held, the next one must fit beside them, they are paid once."""

from typing import Any

import msgspec
import pytest

from contracts.codec import CommitCodec
from contracts.errors import Rejected
from contracts.ledger import Abandoned, Budget, LedgerEvent, LlmPaid, LlmReleased, LlmReserved, LlmTakenOver
from services.llm_worker.ledger import snapshot
from services.llm_worker.ledger.abandoned import merged
from services.llm_worker.ledger.decider import LEDGER, AskAgain, Later, Release, Reserve, decide
from services.llm_worker.ledger.limits import Limits
from services.llm_worker.ledger.payment import Pay
from services.llm_worker.ledger.state import DAY_MS, Held, Ledger, Spent, day_of
from tests.support.spec import NOW_MS, Spec

CODEC: CommitCodec[LedgerEvent] = CommitCodec(LedgerEvent)
TODAY = day_of(NOW_MS)
DAY = f"day/{TODAY}"
DAY_100 = Limits(usd_micros=100)
ONE = Abandoned("openai", "gpt", 50, 40)


def same(ledger: Ledger) -> Any:
    return (ledger.open, ledger.spent, ledger.held, ledger.live, ledger.grants, ledger.closed)


def ledger() -> Spec:
    return Spec(LEDGER, "all", codec=CODEC, same=same)


def reserve(
    worker_id: str = "w1", usd: int | None = 40, model: str = "gpt", corr_id: str = "c", **more: Any
) -> Reserve:
    more = {"limits": DAY_100, "billed_by": "openai", "request_seq": 1, **more}
    return Reserve(corr_id, worker_id, more.pop("request_seq"), model, 50, usd, 40_000, more.pop("limits"), **more)


def again(worker_id: str, **more: Any) -> tuple[Reserve, AskAgain]:
    """A worker takes the call over, finds no answer to it, and asks."""
    return reserve(worker_id, **more), AskAgain("c", worker_id, 1)


def pay(cost: int | None = 7, worker_id: str = "w2", **more: Any) -> Pay:
    return Pay("c", worker_id, 1, "gpt", "openai", 3, 4, cost, **more)


def test_who_takes_over_holds_what_the_dead_one_may_have_cost_beside_its_own_asking():
    spec = ledger().after(reserve())
    spec.when(reserve("w2")).then(LlmTakenOver("c", NOW_MS, "w2", 1, NOW_MS + 40_000, [ONE], looks=True))
    assert spec.state.held[DAY] == Held(100, 80)
    assert spec.state.held[f"model/{TODAY}/gpt"] == Held(100, 80)
    assert spec.state.live == {"": 1, "gpt": 1}


def test_who_takes_over_by_other_prices_holds_what_it_may_cost_now():
    spec = ledger().after(reserve())
    spec.when(reserve("w2", usd=60)).then(
        LlmReleased("c", NOW_MS, "w2", "repriced"),
        LlmReserved("c", NOW_MS, "w2", "gpt", 50, 60, 1, NOW_MS + 40_000, billed_by="openai", abandoned=[ONE]),
    )
    assert spec.state.held[DAY] == Held(100, 100)
    bill = pay(cost=55, abandoned_tokens=50, abandoned_usd_micros=40)
    (paid,) = spec.when(bill).events
    assert (paid.cost_usd_micros, paid.disputed_usd_micros) == (95, 0)


def test_who_takes_over_by_prices_that_do_not_fit_is_refused():
    spec = ledger().after(reserve())
    spec.when(reserve("w2", usd=61)).then_rejected("budget_exceeded")
    unbilled = ledger().after(reserve(billed_by=""))
    unbilled.when(reserve("w2", usd=101, billed_by="")).then_rejected("budget_exceeded")
    assert unbilled.when(reserve("w2", usd=100, billed_by="")).types() == ["LlmReleased", "LlmReserved"]


def test_both_are_one_payment():
    spec = ledger().after(reserve(), *again("w2"))
    bill = pay(abandoned_tokens=50, abandoned_usd_micros=40)
    spec.when(bill).then(LlmPaid("c", NOW_MS, "w2", TODAY, "gpt", "openai", 3, 4, 47, 1, abandoned=[ONE]))
    assert spec.state.spent[DAY] == spec.state.spent[f"model/{TODAY}/gpt"] == Spent(1, 57, 47)
    assert (spec.state.held, spec.state.live) == ({}, {})
    spec.when(bill).then_nothing()


def test_where_nobody_bills_it_the_dead_one_cost_nothing():
    spec = ledger().after(reserve(billed_by=""), reserve("w2", billed_by=""))
    assert spec.state.held[DAY] == Held(50, 40)
    spec.when(pay()).then(LlmPaid("c", NOW_MS, "w2", TODAY, "gpt", "openai", 3, 4, 7, 1))


def test_a_second_death_is_held_and_paid_too():
    spec = ledger().after(reserve(usd=30), *again("w2", usd=30), *again("w3", usd=30))
    assert spec.state.held[DAY] == Held(150, 90)
    spec.when(reserve("w4", usd=30)).then_rejected("budget_exceeded", reserved=90 / 1e6, needed=30 / 1e6)
    spec.when(pay(worker_id="w3")).then(
        LlmPaid(
            "c", NOW_MS, "w3", TODAY, "gpt", "openai", 3, 4, 67, 1,
            abandoned=[Abandoned("openai", "gpt", 100, 60)],
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "code"),
    [
        (Budget("task", "r/a", 70), "budget_exceeded"),
        (Budget("run", "r", None, 90), "budget_exceeded"),
        (Budget("epic", "e", 70), "epic_budget_exceeded"),
    ],
)
def test_the_second_asking_must_fit_in_every_budget(budget, code):
    spec = ledger().after(reserve(limits=Limits(), budgets=(budget,)))
    spec.when(reserve("w2", limits=Limits(), budgets=(budget,))).then_rejected(code, scope=budget.kind)
    with pytest.raises(Rejected, match=code) as refused:
        decide(reserve("w2", limits=Limits(), budgets=(budget,)), spec.state, NOW_MS)
    assert not isinstance(refused.value, Later), "what this call itself holds never ends before it"


def test_what_would_fit_without_the_calls_of_others_waits_for_them():
    spec = ledger().after(reserve(), reserve(corr_id="other", usd=30))
    with pytest.raises(Later):
        decide(reserve("w2"), spec.state, NOW_MS)
    spec.after(Pay("other", "w1", 1, "gpt", "openai", 1, 1, 5))
    assert spec.when(reserve("w2")).types() == ["LlmTakenOver"]


def test_a_model_of_its_own_limit_counts_them_as_well():
    one: dict[str, Any] = {"limits": Limits(), "model_limits": Limits(usd_micros=70)}
    ledger().after(reserve(**one)).when(reserve("w2", **one)).then_rejected("budget_exceeded", scope="model")


def test_who_is_refused_pays_for_the_dead_one_alone():
    spec = ledger().after(reserve(usd=60))
    spec.when(reserve("w2", usd=60)).then_rejected("budget_exceeded")
    bill = pay(0, estimated=True, abandoned_tokens=50, abandoned_usd_micros=60)._replace(
        prompt_tokens=0, completion_tokens=0
    )
    dead = Abandoned("openai", "gpt", 50, 60)
    spec.when(bill).then(
        LlmPaid("c", NOW_MS, "w2", TODAY, "gpt", "openai", 0, 0, 60, 1, estimated=True, abandoned=[dead])
    )
    assert spec.state.spent[DAY] == Spent(1, 50, 60)


def test_an_orphan_is_paid_as_reserved_where_somebody_bills_it_and_released_where_nobody_does():
    orphaned = Release("c", "w9", "orphaned", holder="w1", unheard=True)
    ledger().after(reserve()).when(orphaned).then(
        LlmPaid("c", NOW_MS, "w9", TODAY, "gpt", "openai", 0, 0, 40, 1, estimated=True, abandoned=[ONE])
    )
    ledger().after(reserve(billed_by="")).when(orphaned).then(LlmReleased("c", NOW_MS, "w9", "orphaned"))


def test_an_end_that_cost_nothing_still_pays_for_what_was_abandoned_before():
    spec = ledger().after(reserve(), *again("w2"))
    spec.when(Release("c", "w2", "provider_overloaded", holder="w2")).then(
        LlmPaid("c", NOW_MS, "w2", TODAY, "gpt", "openai", 0, 0, 40, 1, estimated=True, abandoned=[ONE])
    )


def test_another_model_that_answers_instead_keeps_it_held_where_it_is():
    spec = ledger().after(reserve(), *again("w2"))
    told = spec.when(reserve("w2", model="own", billed_by="nats"))
    assert told.types() == ["LlmReleased", "LlmReserved"]
    assert told.events[1].abandoned == [ONE]
    assert spec.state.held[DAY] == Held(100, 80)
    assert spec.state.held[f"model/{TODAY}/gpt"] == spec.state.held[f"model/{TODAY}/own"] == Held(50, 40)
    spec.after(pay()._replace(model="own", provider="nats"))
    assert spec.state.spent[DAY] == Spent(1, 57, 47)
    assert spec.state.spent[f"model/{TODAY}/gpt"] == Spent(0, 50, 40)
    assert spec.state.spent[f"model/{TODAY}/own"] == Spent(1, 7, 7)


def test_the_model_that_a_dead_worker_had_fallen_back_to_is_not_forgotten():
    spec = ledger().after(reserve(model="own", billed_by="nats"))
    (_, reserved) = spec.when(reserve("w2")).events
    assert reserved.abandoned == [Abandoned("nats", "own", 50, 40)]
    spec.when(reserve("w3", usd=50, model="third")).then_rejected("budget_exceeded")  # 40 + 40 + 50 are too much


def test_it_counts_for_the_day_of_the_first_asking_over_midnight_too():
    spec = ledger().after(reserve()).later(DAY_MS)
    (taken,) = spec.when(reserve("w2", usd=40)).events
    assert taken == LlmTakenOver("c", spec.now_ms, "w2", 1, spec.now_ms + 40_000, [ONE], looks=True)
    spec.after(AskAgain("c", "w2", 1))
    (_, reserved) = spec.when(reserve("w2", model="own", billed_by="nats")).events
    assert (reserved.day, spec.state.held[DAY]) == (TODAY, Held(100, 80))
    spec.after(pay()._replace(model="own", provider="nats"))
    assert set(spec.state.spent) == {DAY, f"model/{TODAY}/gpt", f"model/{TODAY}/own"}


def test_what_nobody_knows_the_price_of_stays_unknown_and_is_charged_as_far_as_it_is_known():
    spec = ledger().after(reserve(), *again("w2"))
    (paid,) = spec.when(pay(None)).events
    assert (paid.cost_usd_micros, paid.charged_usd_micros) == (None, 80)
    assert spec.state.spent[DAY] == Spent(1, 57, 80, 1)
    unpriced: dict[str, Any] = {"usd": None, "allow_unpriced": True}
    spec = ledger().after(reserve(**unpriced), *again("w2", **unpriced))
    (paid,) = spec.when(pay(7)).events
    assert (paid.cost_usd_micros, paid.charged_usd_micros, paid.tokens) == (None, 7, 57)


def test_the_answer_of_a_worker_that_was_only_silent_is_paid_and_so_is_who_took_over_from_it():
    spec = ledger().after(reserve(), *again("w2"))
    (paid,) = spec.when(pay(worker_id="w1")).events
    assert (paid.cost_usd_micros, paid.abandoned) == (47, [ONE])
    spec.when(pay()).then_nothing()


def test_who_takes_over_looks_for_an_answer_before_it_asks():
    spec = ledger().after(reserve())
    assert spec.when(reserve("w2")).events[0].looks
    spec.when(reserve("w2")).then_nothing()
    spec.when(AskAgain("c", "w9", 1)).then_nothing()
    spec.when(AskAgain("c", "w2", 1)).then(LlmTakenOver("c", NOW_MS, "w2", 1, NOW_MS + 40_000, [ONE]))
    spec.when(AskAgain("c", "w2", 1)).then_nothing()
    assert len(spec.state.grants[""]) == 2, "it is asked for once"
    assert spec.state.held[DAY] == Held(100, 80)


def test_an_answer_that_is_found_instead_is_paid_as_it_says():
    spec = ledger().after(reserve(), reserve("w2"))
    spec.when(pay(worker_id="w2")).then(LlmPaid("c", NOW_MS, "w2", TODAY, "gpt", "openai", 3, 4, 7, 1))
    spec.when(AskAgain("c", "w2", 1)).then_nothing()
    assert not spec.state.open
    spec = ledger().after(reserve(), reserve("w2"))
    (paid,) = spec.when(pay(worker_id="w1", abandoned_tokens=50, abandoned_usd_micros=40)).events
    assert (paid.cost_usd_micros, paid.abandoned) == (47, [ONE])


def test_what_was_lost_before_is_paid_with_an_answer_that_is_found():
    spec = ledger().after(reserve(usd=20), *again("w2", usd=20), reserve("w3", usd=20))
    (paid,) = spec.when(pay(abandoned_tokens=50, abandoned_usd_micros=20)).events
    assert paid.cost_usd_micros == 27


def test_an_error_that_is_found_and_cost_nothing_costs_nothing():
    found = Release("c", "w2", "provider_unavailable", request_seq=1)
    ledger().after(reserve(), reserve("w2")).when(found).then(LlmReleased("c", NOW_MS, "w2", "provider_unavailable"))
    (paid,) = ledger().after(reserve(), *again("w2")).when(found).events
    assert paid.cost_usd_micros == 40


def test_who_only_looked_and_is_gone_cost_nothing():
    spec = ledger().after(reserve(), reserve("w2"))
    (taken,) = spec.when(reserve("w3")).events
    assert (taken.abandoned, taken.looks) == ([ONE], True)
    (paid,) = spec.when(Release("c", "w9", "orphaned", holder="w3", unheard=True)).events
    assert paid.abandoned == [ONE]


def test_who_answers_after_another_one_asked_does_not_make_that_free_whatever_it_says():
    (paid,) = ledger().after(reserve(), *again("w2")).when(pay(worker_id="w1")).events
    assert paid.cost_usd_micros == 47


def test_an_answer_of_another_model_than_is_asked_now_leaves_both_askings_to_pay():
    spec = ledger().after(reserve(), *again("w2"), reserve("w2", usd=20, model="own", billed_by="nats"))
    (paid,) = spec.when(pay(worker_id="w1", abandoned_tokens=100, abandoned_usd_micros=60)).events
    assert (paid.model, paid.cost_usd_micros) == ("gpt", 67)


def test_a_call_that_is_paid_is_reserved_anew_only_when_it_has_no_answer():
    spec = ledger().after(reserve(), pay())
    spec.when(reserve("w2")).then_nothing()
    assert spec.when(reserve("w2", anew=True)).types() == ["LlmReserved"]


def test_an_answer_that_says_so_is_believed_where_the_ledger_knows_of_no_reservation():
    (paid,) = ledger().when(pay(abandoned_tokens=50, abandoned_usd_micros=40)).events
    assert (paid.cost_usd_micros, paid.tokens) == (47, 57)


def test_a_snapshot_holds_it_and_one_of_before_is_read():
    spec = ledger().after(reserve(), *again("w2"))
    assert same(snapshot.restore(snapshot.dump(spec.state))) == same(spec.state)
    kept = msgspec.msgpack.decode(snapshot.dump(ledger().after(reserve(billed_by="")).state))
    kept["open"] = {corr_id: entry[:14] for corr_id, entry in kept["open"].items()}
    assert same(snapshot.restore(msgspec.msgpack.encode(kept)))[0]["c"].abandoned == ()


def test_what_was_taken_over_is_taken_back_when_it_was_not_stored():
    spec = ledger().after(reserve(), *again("w2"))
    now, before = spec.state, snapshot.dump(spec.state)
    now.undo = []
    for command in (reserve("w3", usd=40, limits=Limits()), pay()):
        for event in decide(command, now, NOW_MS + 5):
            LEDGER.evolve(now, event)
    now.take_back()
    assert same(snapshot.restore(before)) == same(now)


def test_however_often_a_call_loses_its_worker_the_list_stays_short():
    many = merged([ONE] * 5 + [Abandoned("nats", "own", 1, None)] * 2)
    assert many == (Abandoned("openai", "gpt", 250, 200), Abandoned("nats", "own", 2, None))


def test_events_of_before_fold_as_ever():
    old = LlmReserved("c", NOW_MS, "w1", "gpt", 50, 40, 1, NOW_MS + 40_000)
    spec = ledger().given(old, LlmTakenOver("c", NOW_MS, "w2", 1, NOW_MS + 40_000))
    assert spec.state.held[DAY] == Held(50, 40)
