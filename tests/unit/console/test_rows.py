"""However wide the terminal is, a row of it begins with our words or with our margin."""

import pty
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console.rows import COLUMNS_DEFAULT, COLUMNS_MIN, MARGIN, broken, columns_of


def test_no_row_begins_with_what_was_put_there_to_begin_one() -> None:
    forged = " " * 67 + "Who are you?  > Aka".ljust(80) + "Enter your code.  > ".ljust(80) + " " * 80 * 24
    rows = broken(f'            "{forged}"', 80).split("\n")
    assert all(len(row) <= 80 for row in rows)
    assert all(row.startswith(MARGIN) for row in rows[1:])
    assert len(rows) > 24, "what is empty has a margin that can be seen"


@given(st.text(st.characters(exclude_characters="\n")), st.integers(COLUMNS_MIN, 200))
def test_nothing_is_lost_and_every_row_fits(line: str, columns: int) -> None:
    first, *others = broken(line, columns).split("\n")
    assert first + "".join(row.removeprefix(MARGIN) for row in others) == line
    wide = [sum(1 if char <= "~" else 2 for char in row) for row in (first, *others)]
    assert max(wide) <= columns


def test_lines_stay_lines_and_what_goes_to_no_terminal_stays_as_it_is(tmp_path: Path) -> None:
    assert broken("a\n\nb", 80) == "a\n\nb"
    with (tmp_path / "file").open("w") as stream:
        assert columns_of(stream) is None
    assert broken("x" * 500, None) == "x" * 500


@pytest.mark.parametrize(("told", "columns"), [(0, COLUMNS_DEFAULT), (3, COLUMNS_MIN), (132, 132)])
def test_a_terminal_is_as_wide_as_it_says_if_it_says(told: int, columns: int) -> None:
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (24, told))
    with open(reader, "rb"), open(writer, "w", encoding="utf-8") as stream:
        assert columns_of(stream) == columns
