"""Lines that are longer than a terminal is wide, broken by us: no row begins with words of anybody else.

A terminal that breaks a line begins the next row with whatever stands there, and whoever knows how wide it is can put
a prompt of ours there, and a screen of blanks behind it. Here each further row begins with a margin.
"""

import os
from collections.abc import Iterator
from typing import Final, TextIO

MARGIN: Final = "  | "
COLUMNS_DEFAULT: Final = 80
COLUMNS_MIN: Final = 20


def columns_of(stream: TextIO) -> int | None:
    """How wide the terminal is that `stream` goes to; None when it goes to none."""
    if not stream.isatty():
        return None
    try:
        told = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        told = 0
    return max(told or COLUMNS_DEFAULT, COLUMNS_MIN)


def broken(text: str, columns: int | None) -> str:
    """`text` in rows of at most so many columns; as it is when nobody knows how many there are."""
    if columns is None:
        return text
    return "\n".join(row for line in text.split("\n") for row in _rows(line, columns))


def _rows(line: str, columns: int) -> Iterator[str]:
    start, room = 0, columns
    for at, char in enumerate(line):
        # Terminals do not agree on the width of others: two columns are always enough.
        room -= 1 if char <= "~" else 2
        if room < 0:
            yield _margin(start) + line[start:at]
            start, room = at, columns - len(MARGIN) - (1 if char <= "~" else 2)
    yield _margin(start) + line[start:]


def _margin(start: int) -> str:
    return MARGIN if start else ""
