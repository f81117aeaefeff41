"""The seeded chaos run over money: workers are killed over midnight, and every law of the ledger holds."""

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from msgspec import structs

from contracts.ledger import Abandoned, LlmPaid, LlmReserved, LlmTakenOver

CHAOS = Path(__file__).parents[2] / "scripts" / "chaos-money"
NOON_MS = 1_790_000_000_000


def module() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("chaos_money", str(CHAOS))
    spec = importlib.util.spec_from_loader("chaos_money", loader)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    loader.exec_module(made)
    return made


def reserved(corr_id: str, usd_micros: int) -> LlmReserved:
    return LlmReserved(corr_id, NOON_MS, "w1", "mock", 10, usd_micros, 1, NOON_MS + 1)


def paid(corr_id: str, usd_micros: int) -> LlmPaid:
    return LlmPaid(corr_id, NOON_MS, "w1", "2026-09-21", "mock", "mock", 1, 1, usd_micros, 1)


@pytest.mark.timeout(240)
def test_killed_workers_over_midnight_break_no_law():
    words = ("--seed", "11", "--calls", "40", "--kills", "3", "--within", "10", "--deadline", "120")
    done = subprocess.run([sys.executable, CHAOS, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["broken"] == []
    assert len(report["days"]) == 2
    assert report["answers"]["ok"]


def test_its_judge_sees_a_limit_that_was_exceeded_and_ends_without_a_beginning():
    judge = module().broken_at_a_sequence
    assert judge([reserved("a", 350_000), paid("a", 350_000)]) == []
    assert judge([reserved("a", 350_000), reserved("b", 1), paid("a", 0), paid("b", 0)]) == [
        "event 1: 2026-09-21 has 350001 of 350000"
    ]
    again = LlmTakenOver("a", NOON_MS, "w2", 1, NOON_MS + 1, [Abandoned("openai", "mock", 10, 200_000)])
    assert judge([reserved("a", 200_000), again, paid("a", 0)]) == ["event 1: 2026-09-21 has 400000 of 350000"]
    assert judge([paid("a", 1)]) == ["event 0: a ends without a reservation"]
    assert judge([reserved("a", 1)]) == ["a is still reserved"]
    twice = [reserved("a", 1), paid("a", 1), reserved("a", 1), paid("a", 1)]
    assert judge(twice) == ["event 3: a is paid twice"]
    unknown = structs.replace(paid("a", 0), cost_usd_micros=None, charged_usd_micros=350_001)
    assert judge([reserved("a", 350_001), unknown]) == [
        "event 0: 2026-09-21 has 350001 of 350000",
        "event 1: 2026-09-21 has 350001 of 350000",
    ]
    many = [reserved(str(number), 0) for number in range(7)]
    assert "event 6: 7 calls under way" in judge(many)
