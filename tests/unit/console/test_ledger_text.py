"""The ledger as people read it."""

from services.console.ledger_text import dollars, estimate_text, ledger_text, limits_text
from services.console.output import Output

LIMITS = {
    "limit_usd_micros": 100_000_000,
    "spent_usd_micros": 12_400_000,
    "reserved_usd_micros": 600_000,
    "resets_at": "2026-11-29T00:00:00.000Z",
    "requests_per_minute": 60,
    "requests_used": 41,
    "concurrent": 10,
    "in_flight": 10,
    "queue": 7,
    "cost_unknown": 0,
    "models": [],
}


def test_limits_are_one_line():
    assert limits_text(LIMITS) == (
        "daily $100.00  spent $12.40  reserved $0.60  resets 00:00Z | 60/min used 41 | concurrent 10/10 queue 7"
    )


def test_what_is_not_limited_says_so_and_models_have_lines_of_their_own():
    model = {
        "model": "gpt-4o",
        "limit_usd_micros": 5_000_000,
        "spent_usd_micros": 1,
        "reserved_usd_micros": 0,
        "requests_per_minute": 5,
        "requests_used": 2,
        "concurrent": 1,
        "in_flight": 0,
    }
    lifted = {"limit_usd_micros": 0, "requests_per_minute": 0, "concurrent": 0, "cost_unknown": 3, "models": [model]}
    assert limits_text({**LIMITS, **lifted}).splitlines() == [
        "daily no limit  spent $12.40  reserved $0.60  resets 00:00Z | no limit/min used 41 "
        "| concurrent 10/no limit queue 7",
        "3 calls of unknown cost today (limits count what they were held for, the ledger nothing)",
        "gpt-4o: daily $5.00  spent $0.000001  reserved $0.00 | 5/min used 2 | concurrent 0/1",
    ]


def test_fractions_of_a_cent_are_shown():
    assert [dollars(micros) for micros in (0, 10_000, 12_345)] == ["$0.00", "$0.01", "$0.012345"]


def test_a_call_is_shown_with_what_it_cost_or_is_held_for():
    row = {
        "at": "2026-11-28T10:00:00.000Z",
        "status": "paid",
        "corr_id": "c1",
        "model": "gpt-4o",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost_usd_micros": 450,
        "reserved_usd_micros": 900,
        "reason": "",
    }
    rows = [
        row,
        {**row, "corr_id": "c2", "cost_usd_micros": None},
        {**row, "corr_id": "c3", "status": "reserved"},
        {**row, "corr_id": "c4", "status": "released", "reason": "timeout"},
    ]
    found = {
        "calls": 2,
        "tokens": 30,
        "cost_usd_micros": 450,
        "cost_unknown": 1,
        "reserved": 1,
        "reserved_usd_micros": 900,
        "rows": rows,
    }
    *lines, sums = ledger_text(found, Output(json=False)).splitlines()
    assert [line.split()[5:7] for line in lines[1:]] == [
        ["$0.0009", cost] for cost in ("$0.00045", "unknown", "($0.0009)", "-")
    ]
    assert sums == (
        "2 paid calls  30 tokens  $0.00045  and 1 of unknown cost "
        "(limits count what they were held for, the ledger nothing)  reserved $0.0009 for 1"
    )
    assert ledger_text({**found, "rows": []}, Output(json=False)) == sums


def test_what_nobody_heard_is_told_beside_the_cost():
    row = {
        "at": "2026-11-28T10:00:00.000Z", "status": "paid", "corr_id": "c", "model": "m", "prompt_tokens": 10,
        "completion_tokens": 5, "cost_usd_micros": 1_350, "reserved_usd_micros": 900, "reason": "",
        "abandoned_tokens": 30, "abandoned_usd_micros": 900,
    }  # fmt: skip
    unknown = {**row, "status": "released", "reason": "timeout", "abandoned_usd_micros": None}
    found = {
        "calls": 1,
        "tokens": 45,
        "cost_usd_micros": 1_350,
        "cost_unknown": 0,
        "reserved": 0,
        "rows": [row, unknown],
    }
    _, first, second, _ = ledger_text(found, Output(json=False)).splitlines()
    assert "  45  " in first
    assert first.endswith("$0.0009 of it abandoned")
    assert second.endswith("timeout an unknown cost of it abandoned")


def test_an_estimate_names_the_refusal():
    found = {
        "model_used": "m",
        "prompt_tokens": 5,
        "prompt_tokens_max": 30,
        "completion_tokens_max": 100,
        "cost_usd_micros": None,
        "cost_usd_micros_max": None,
        "refusal": "price_unknown",
    }
    assert estimate_text(found) == (
        "m  5 prompt tokens (at most 30)  answer at most 100  cost unknown\nnow refused: price_unknown"
    )
    known = {**found, "cost_usd_micros": 1_000, "cost_usd_micros_max": 2_000, "refusal": None}
    assert estimate_text(known).endswith("$0.0020 at most")


def test_workers_that_go_by_other_limits_are_named():
    lines = limits_text({**LIMITS, "disagreeing": [{"worker_id": "w2", "limits": []}]}).splitlines()
    assert lines[1:] == ["workers go by different limits: other ones hold at w2; restart all of them"]
