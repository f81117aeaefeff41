"""What a terminal is given: it obeys our own colours and nothing else, and every other character can be seen.

Titles, results and errors are words of agents, models and tools. On a terminal they could clear the screen, draw a
prompt, turn a line around or hide a part of themselves; there each odd character stands as its escape, as it does in
what a human is asked to release. What goes to a file or a pipe stays as it is, byte for byte.
"""

import re
import secrets
import unicodedata
from typing import Final, TextIO

from contracts.action_text import visible

_OURS: Final = f"\x1b{secrets.token_hex(8)}"
"""Begins a colour of ours until it is written; nobody whose words we show can know it."""
_COLOUR: Final = re.compile(rf"{_OURS}\[([\d]+)m")
_UNUSUAL: Final = re.compile(r"[^\n\t -~]")
_SPACE: Final = "Zs"


def coloured(text: str, sgr: str) -> str:
    """`text` in a colour; `terminal_text` or `file_text` must be asked for it before it is written."""
    return f"{_OURS}[{sgr}m{text}{_OURS}[0m"


def width(text: str) -> int:
    """How many characters of `text` are shown: colours take no place."""
    return len(_COLOUR.sub("", text)) if _OURS in text else len(text)


def words_for(stream: TextIO, text: str) -> str:
    """`text` as it may be written to `stream`."""
    return terminal_text(text) if stream.isatty() else file_text(text)


def terminal_text(text: str) -> str:
    """Our colours, and of all else only what can be seen, ends of lines, tabs and spaces of any kind."""
    # Every second piece is the number of a colour.
    pieces = _COLOUR.split(text)
    return "".join(f"\x1b[{one}m" if number % 2 else _seen(one) for number, one in enumerate(pieces))


def file_text(text: str) -> str:
    """The text as it is, with our colours where somebody forced them."""
    return _COLOUR.sub("\x1b[\\1m", text) if _OURS in text else text


def _seen(text: str) -> str:
    return _UNUSUAL.sub(_told, text.replace("\r\n", "\n"))


def _told(unusual: re.Match[str]) -> str:
    char = unusual[0]
    return char if unicodedata.category(char) == _SPACE else visible(char)
