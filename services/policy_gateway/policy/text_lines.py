"""Which line of a TOML text a refusal is about. Best effort: people need a place to look at, not a proof."""

import re
from typing import Final

_LINE: Final = re.compile(r"\(at line (\d+)")
_STRANGER: Final = re.compile(r"unknown field `([^`]+)`")
_ANY: Final = "*"
_KEY: Final = re.compile(r"^\s*(?:\[+\s*)?([A-Za-z0-9_.\"'-]+)\s*(?:\]+|=)")


def line_of(text: str, field: str, message: str) -> int | None:
    """The line that a message names, else the one where the field, or the nearest part of it that stands there, is."""
    named = _LINE.search(message)
    if named:
        return int(named.group(1))
    places = _places(text)
    stranger = _STRANGER.search(message)
    if stranger:
        # The reader of the text says which key is strange, but not in which of the tables of its kind.
        return next((line for name, line in places.items() if name[-1] == stranger.group(1)), None)
    wanted = tuple(
        part for part in re.split(r"[.\[\]]+", field.replace("[...]", f".{_ANY}")) if part and not part.isdecimal()
    )
    while wanted:
        found = next((line for name, line in places.items() if _fits(name, wanted)), None)
        if found is not None:
            return found
        wanted = wanted[:-1]
    return None


def _fits(name: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return len(name) == len(wanted) and all(part in (one, _ANY) for one, part in zip(name, wanted, strict=True))


def _places(text: str) -> dict[tuple[str, ...], int]:
    """The line of every table and key, by its whole name."""
    table: tuple[str, ...] = ()
    places: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = _KEY.match(line)
        if found is None:
            continue
        name = tuple(part.strip("\"'") for part in found.group(1).split("."))
        if line.lstrip().startswith("["):
            table = name
            places.setdefault(name, number)
        else:
            places.setdefault((*table, *name), number)
    return places
