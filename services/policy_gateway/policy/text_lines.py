"""Which line of a TOML text a refusal is about. Best effort: people need a place to look at, not a proof."""

import re
from typing import Final

_LINE: Final = re.compile(r"\(at line (\d+)")
_KEY: Final = re.compile(r"^\s*(?:\[+\s*)?([A-Za-z0-9_.\"'-]+)\s*(?:\]+|=)")


def line_of(text: str, field: str, message: str) -> int | None:
    """The line that a message names, else the one where the field, or the nearest part of it that stands there, is."""
    named = _LINE.search(message)
    if named:
        return int(named.group(1))
    wanted = [part for part in re.split(r"[.\[\]`]+", field) if part and not part.isdecimal()]
    places = _places(text)
    while wanted:
        found = places.get(tuple(wanted))
        if found is not None:
            return found
        wanted.pop()
    return None


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
