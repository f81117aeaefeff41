"""Every law of the security design is proved by a test that carries its number: `grep 'law("I8")' tests`."""

import ast
import functools
from collections.abc import Iterator

from tests.architecture.source import sources

LAWS = {
    "I1": "accepted tasks end exactly once",
    "I2": "no task starts before what it depends on",
    "I3": "attempts grow",
    "I4": "one bill per call id",
    "I6": "a gated effect has one valid human approval before it, used once",
    "I7": "a step of a user's codes is accepted once",
    "I8": "one effect per task, attempt and call",
    "I9": "what is denied has no effect",
    "I10": "a replay gives equal bytes",
    "I11": "the audit chain is unbroken",
    "I12": "no run is stuck",
    "I13": "no secret leaks",
    "I14": "nothing is left behind",
    "I15": "faults are visible",
}
"""I5, that what is reserved and spent stays within the budget, is a law of the ledger and gets its test with it."""


@functools.cache
def marked() -> tuple[tuple[str, str], ...]:
    """Numbers of laws, and the tests that carry them."""
    return tuple(_marked())


def _marked() -> Iterator[tuple[str, str]]:
    for source in sources("tests"):
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.law":
                    yield ast.literal_eval(mark.args[0]), f"{source.path}::{node.name}"


def test_every_law_has_a_test_that_carries_its_number() -> None:
    found = dict(marked())
    assert [f"{number}: {law}" for number, law in LAWS.items() if number not in found] == []


def test_only_tests_carry_numbers_and_only_known_ones() -> None:
    assert [(number, test) for number, test in marked() if number not in {*LAWS, "I5"}] == []
    assert [test for _, test in marked() if not test.rpartition("::")[2].startswith("test_")] == []
