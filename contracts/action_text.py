"""What a gate's action is, in words for people: nothing in it that a terminal obeys, or that a reader cannot see.

The words of an action come from whoever planned the task, agents included. They are shown escaped, so that they cannot
draw a prompt, hide a part of themselves or turn the line around.
"""

import json
import re
from typing import Any, Final

SUMMARY_CHARS_MAX: Final = 160
_NODE: Final = "node"
_BLANKS: Final = re.compile(" {4,}")
_UNSEEN: Final = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),  # joins graphemes
        (0x115F, 0x1160),  # Hangul fillers, as the next but three
        (0x17B4, 0x17B5),  # Khmer vowels that are inherent
        (0x180B, 0x180F),  # Mongolian variation selectors
        (0x2800, 0x2800),  # the Braille pattern without a dot
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),  # variation selectors, as the last
        (0xFFA0, 0xFFA0),
        (0xFFFC, 0xFFFC),  # stands for an object that is not there
        (0x13441, 0x13442),  # blanks of Egyptian hieroglyphs
        (0x16FE4, 0x16FE4),  # the Khitan filler
        (0x1D159, 0x1D159),  # the note head that is none
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)
"""Printable by what Unicode says of their kind, and yet nothing is drawn for them."""


def visible(text: str) -> str:
    """The text on one line; what is no printable character, or is drawn as nothing, stands as its escape."""
    return "".join(char if char.isprintable() and char not in _UNSEEN else _escape(char) for char in text)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON for people: every character of it can be seen, and it still says the same."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    return "\n".join(visible(line) for line in text.split("\n"))


def summary(action: Any, chars_max: int = SUMMARY_CHARS_MAX) -> str:
    """The action in one line, such as `admin shell ["deploy.sh"]`; what is cut says so.

    Of many blanks in a row each stands as its escape: wherever the line is broken, none of its words stand alone.
    """
    text = _BLANKS.sub(lambda blanks: "\\u0020" * len(blanks[0]), _words(action))
    if len(text) <= chars_max:
        return text
    more = len(text) - chars_max
    return f"{text[:chars_max]}… and {more} characters more"


def _words(action: Any) -> str:
    node = action.get(_NODE) if isinstance(action, dict) else None
    if not isinstance(node, dict):
        return as_json(action)
    role, kind = visible(str(action.get("role") or "")), str(node.get("type") or "")
    rest = {key: value for key, value in node.items() if key != "type" and value not in (None, "", [], {})}
    if kind == "tool":
        args = rest.get("args", {})
        told = args["cmd"] if isinstance(args, dict) and set(args) == {"cmd"} else args
        return f"{role} {visible(str(rest.get('tool') or ''))} {as_json(told)}".strip()
    return f"{role} {visible(kind)} {as_json(rest)}".strip()


def _escape(char: str) -> str:
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
    if short is not None:
        return short
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return re.sub("....", lambda unit: f"\\u{unit[0]}", units)
