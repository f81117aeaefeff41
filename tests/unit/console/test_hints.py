"""A hint that names a command names one that exists, with options that it has."""

import re
from typing import get_args

import pytest
from cyclopts import App

from contracts.errors import CATALOGUE
from contracts.task import NODE_TYPES, Node
from services.console import cli

NAMED = sorted(
    (code, command) for code, kind in CATALOGUE.items() for command in re.findall(r"`htdag ([^`]+)`", kind.hint)
)


@pytest.mark.parametrize(("code", "command"), NAMED, ids=lambda value: value)
def test_a_hint_names_a_command_that_exists(code, command):
    words = command.split()
    app: App = cli.application(used=words[0])
    while words and words[0] in list(app):
        app = app[words.pop(0)]
    assert app.default_command is not None, f"{code}: htdag {command} is no command"
    options = {name for one in app.assemble_argument_collection() for name in one.names}
    assert {word for word in words if word.startswith("-")} <= options, f"{code}: htdag {command} has no such option"
    positional = [word for word in words if not word.startswith("-")]
    assert len(positional) <= sum(1 for one in app.assemble_argument_collection() if one.field_info.is_positional)


def test_the_hint_about_node_types_names_all_that_there_are():
    assert CATALOGUE["unknown_node_type"].hint == "types: agent, llm, lua, noop, nats, tool, approval, group"
    assert len(NODE_TYPES) == len(get_args(Node))


def test_there_are_hints_to_look_at():
    assert len(NAMED) > 10
