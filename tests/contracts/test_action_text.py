"""What a human is shown of an action: all of it, and nothing that the action's own words could fake."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.action_text import as_json, summary, visible

SHELL = {"type": "tool", "tool": "shell", "args": {"cmd": ["deploy.sh"]}}
DEPLOY = {"role": "admin", "title": "ship it", "node": SHELL}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "tool", "tool": "shell", "args": {"cmd": ["deploy.sh"]}}, 'admin shell ["deploy.sh"]'),
        ({"type": "tool", "tool": "git", "args": {"cmd": ["push", "-f"], "cwd": "/x"}}, None),
        ({"type": "approval", "title": "go?", "action": {"a": 1}}, 'admin approval {"title":"go?","action":{"a":1}}'),
        ({"type": "noop"}, "admin noop {}"),
    ],
)
def test_an_action_is_told_in_a_line(node: object, words: str | None) -> None:
    told = summary({**DEPLOY, "node": node})
    assert told == (words or 'admin git {"cmd":["push","-f"],"cwd":"/x"}')


def test_what_is_not_a_task_is_told_as_it_is() -> None:
    assert summary({"cmd": ["deploy.sh"]}) == '{"cmd":["deploy.sh"]}'
    assert summary(None) == "null"


def test_a_long_action_says_how_much_is_cut() -> None:
    told = summary({**DEPLOY, "node": {"type": "tool", "tool": "shell", "args": {"cmd": ["x" * 500]}}}, 100)
    assert told.endswith("… and 416 characters more")


@pytest.mark.parametrize("evil", ["\x1b[2J", "a\nEnter your code.", "\u202egnp.exe", "\x9b1A", "\u2028", "\x7f", "\r"])
def test_nothing_of_it_moves_a_cursor_or_turns_a_line(evil: str) -> None:
    for told in (visible(evil), summary({**DEPLOY, "node": {"type": "tool", "tool": evil, "args": {"cmd": [evil]}}})):
        assert told.isprintable()
    assert as_json([evil]).isprintable()


UNSEEN = (
    "\u034f\u115f\u1160\u3164\uffa0\u2800\u17b4\u17b5\u180b\ufe00\ufe0f\U000e0100\U0001d159\ufffc\U00013441\u00ad\u200d"
)


@pytest.mark.parametrize("blank", UNSEEN)
def test_what_is_drawn_as_nothing_stands_as_its_escape(blank: str) -> None:
    cmd = [f"deploy.sh{blank}"]
    for told in (visible(cmd[0]), as_json(cmd), summary({**DEPLOY, "node": {**SHELL, "args": {"cmd": cmd}}})):
        assert told.isascii()
        assert "deploy.sh\\u" in told
    assert json.loads(as_json(cmd)) == cmd


def test_what_is_drawn_stays_as_it_is() -> None:
    text = "cafe\u0301 \u4f60\u597d \u0627\u0644 \u0e17\u0e35\u0e48 \U0001f600 \u2714"
    assert visible(text) == text


def test_blanks_put_no_words_of_a_summary_by_themselves() -> None:
    told = summary({**DEPLOY, "node": {**SHELL, "args": {"cmd": ["x" + " " * 60 + "Who are you?  > "]}}})
    assert "    " not in told
    assert told.startswith('admin shell ["x\\u0020\\u0020')


@given(ANY)
def test_every_character_can_be_seen_and_it_still_says_the_same(value: object) -> None:
    for indent in (None, 2):
        told = as_json(value, indent=indent)
        assert all(line.isprintable() for line in told.split("\n"))
        assert json.loads(told) == value
    assert summary(value).isprintable()
