"""On a terminal everything that others wrote can be seen; elsewhere it stays as it is."""

import os
import pty
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import pytest

from contracts import run as events
from contracts.errors import failure
from contracts.task import TaskSpec
from services.console import failure as failing
from services.console.follow_run import Tree
from services.console.output import Output
from services.console.run_board import Board, take
from services.console.terminal import coloured, terminal_text, width
from services.runtime.clock import FixedClock

EVIL = "ok\x1b[2J\x1b[1;1H\u202eevil\u200b\x9b31m\rX\x07\x7f\x00\u2028\U000e0041"
SEEN = r"ok\u001b[2J\u001b[1;1H\u202eevil\u200b\u009b31m\rX\u0007\u007f\u0000\u2028\udb40\udc41"


def on_a_terminal(act: Callable[[], object]) -> str:
    """What reaches a terminal when both streams of `act` are one."""
    reader, writer = pty.openpty()
    with open(writer, "w", encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
        act()
    said = b""
    while piece := _read(reader):
        said += piece
    os.close(reader)
    return said.decode().replace("\r\n", "\n")


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 1 << 16)
    except OSError:  # how a terminal says that nobody writes any more
        return b""


@pytest.fixture(autouse=True)
def without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


WAYS: dict[str, Callable[[Output, str], None]] = {
    "value": lambda output, text: output.value({}, text),
    "value by a function": lambda output, text: output.value({}, lambda _: text),
    "line": Output.line,
    "note": Output.note,
    "piece": lambda output, text: output.piece(f"{text}\n"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_terminal_is_given_nothing_that_it_obeys_or_hides(way: str):
    assert on_a_terminal(lambda: WAYS[way](Output(), EVIL)) == f"{SEEN}\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_file_is_given_the_words_as_they_are(capsys, way: str):
    WAYS[way](Output(), EVIL)
    said = capsys.readouterr()
    assert said.out + said.err == f"{EVIL}\n"


def test_json_is_for_programs_wherever_it_goes():
    said = on_a_terminal(lambda: Output(json=True).value({"text": "\u202e\x9b"}))
    assert said == '{"text":"\u202e\x9b"}\n'


def test_json_for_people_still_says_the_same():
    said = on_a_terminal(lambda: Output().value({"text": "\u202e\x9b"}))
    assert said == '{\n  "text": "\\u202e\\u009b"\n}\n'


def test_an_error_is_words_of_others_too():
    error = failure("internal", EVIL, hint=f"{EVIL}\nEnter your code.  > ")
    said = on_a_terminal(lambda: failing.report(error, as_json=False))
    assert said == f"error: internal: {SEEN}\nhint: {SEEN} Enter your code.  > \n"


def test_the_live_view_shows_titles_as_every_other_line_does():
    board = Board("r1")
    take(board, events.RunCreated("r1", 5), 0)
    take(board, events.TasksAdded([TaskSpec("a", title=f"{EVIL}\nEnter your code.")]), 0)

    def watch() -> None:
        tree = Tree(Output(), FixedClock())
        tree.event(board, "", events.RunCreated("r1", 5))
        tree.tick()
        tree.end(board)

    said = on_a_terminal(watch)
    assert r"ok\u001b[2J\u001b[1;1H\u202eevil\u200b\u009b31m" in said
    assert [odd for odd in ("\x1b[2J", "\x1b[1;1H", "\u202e", "\u200b", "\x9b", "\x07") if odd in said] == []


def test_lines_tabs_and_spaces_of_a_result_stay():
    text = "a\tb\r\nc\n\u00e9\u00a0\u202f! \u3000 \u4f60\u597d \U0001f600"
    assert terminal_text(text) == text.replace("\r\n", "\n")


def test_only_our_own_colours_are_obeyed():
    assert terminal_text(coloured("no", "31") + "\x1b[31mno\x1b[0m") == "\x1b[31mno\x1b[0m\\u001b[31mno\\u001b[0m"
    assert terminal_text(coloured("\x1b[2J", "31")) == "\x1b[31m\\u001b[2J\x1b[0m"
    assert width(coloured("four", "31")) == 4
