"""A refusal of a request is explained in the flags that were typed."""

import pytest

from contracts.errors import failure
from services.console import cli
from services.console.flag_hints import in_flags

RUN = cli.application(used="run").flags(["run", "x"])


@pytest.mark.parametrize(
    ("detail", "hint"),
    [
        ({"field": "options.parallel", "min": 1, "max": 1024}, "--parallel takes 1 to 1024"),
        ({"field": "options.timeout_ms", "min": 1, "max": 86_400_000}, "--timeout takes 0.001 to 86400 seconds"),
        ({"field": "options.max_tokens", "min": 1}, "--max-tokens takes 1 or more"),
        ({"field": "complexity", "max": 100.0}, "--complexity takes 100 or less"),
        ({"field": "options.temperature"}, "look at --temperature"),
        ({"field": "tasks[0].id", "min": 1}, "compare it with subjects.md"),
        ({}, "compare it with subjects.md"),
    ],
)
def test_a_field_that_a_flag_carries_is_named_as_the_flag(detail, hint):
    assert in_flags(failure("bad_request", **detail), RUN)["hint"] == hint


def test_a_hint_that_says_more_stays():
    error = failure("bad_request", field="options.parallel", hint="say which directory")
    assert in_flags(error, RUN) == error


def test_a_code_of_a_newer_version_stays():
    error = {"code": "unheard_of", "field": "options.parallel"}
    assert in_flags(error, RUN) == error


@pytest.mark.parametrize("words", [["bus", "history", "x", "--limit", "0"], ["bus", "tail", "x", "--count", "0"]])
def test_the_command_line_says_the_flag(words, capsys):
    assert cli.run(words) == 2
    assert f"hint: {words[3]} takes 1 or more" in capsys.readouterr().err
