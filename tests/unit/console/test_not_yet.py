"""Wishes that this version does not fulfil are named; those that it does are not."""

import msgspec
import pytest

from contracts.run import RunOptions
from services.console import cli
from services.console.not_yet import notes


def test_each_option_without_effect_is_named():
    wishes = {"evolve": True, "use_rag": True, "integrate_sparc": False, "parallel": 4}
    said = notes(wishes)
    assert said == [
        "evolution is not part of this version; mutations_proposed and mutations_applied stay empty",
        "use_rag has no effect in this version",
    ]
    assert notes({field.name: True for field in msgspec.structs.fields(RunOptions) if "use" in field.name})


def test_nothing_is_said_of_what_works():
    assert notes(None) == notes(msgspec.to_builtins(RunOptions())) == []
    assert notes({"parallel": 4, "stream": True, "fail_fast": True}) == []


@pytest.mark.parametrize(("words", "what"), [("run", "evolution is a later part")])
def test_the_help_says_so_too(words, what, capsys):
    assert cli.run([*words.split(), "--help"]) == 0
    assert what in " ".join(capsys.readouterr().out.replace("│", " ").split())
