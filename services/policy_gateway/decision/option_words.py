"""Options as words: exact names, bundles of short ones taken apart, values glued or next. No abbreviations, ever."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

Kind = Literal["flag", "value", "optional", "equals", "last"]
"""flag: takes nothing. value: `=v`, glued (short) or the next word. optional: `=v` or glued, or nothing. equals: only
`=v`. last: like value, but may also stand alone at the end."""
Kinds = Mapping[str, Kind]
BUNDLE_MAX = 32
"""How many short options one word may bundle."""
Given = list[tuple[str, str | None]]


def kinds(flags: Iterable[str] = (), values: Iterable[str] = (), optional: Iterable[str] = ()) -> dict[str, Kind]:
    """A table of options from their spelled-out names."""
    table: dict[str, Kind] = dict.fromkeys(flags, "flag")
    table.update(dict.fromkeys(values, "value"))
    table.update(dict.fromkeys(optional, "optional"))
    return table


def read_option(words: Sequence[str], index: int, table: Kinds, given: Given) -> int:
    """Read the option at `index` into `given`. Returns the index behind it and its value, or -1 when it is unknown."""
    word = words[index]
    if word.startswith("--"):
        return _long(words, index, table, given)
    whole = table.get(word)
    if whole == "flag":
        given.append((word, None))
        return index + 1
    if whole is not None and len(word) > 2:
        return _next_word(words, index, whole, word, given)
    for place in range(1, len(word)):
        name = "-" + word[place]
        kind = table.get(name)
        if kind == "flag" and place <= BUNDLE_MAX:
            given.append((name, None))
            continue
        if kind is None or kind in {"flag", "equals"}:
            return -1
        glued = word[place + 1 :]
        if glued or kind == "optional":
            given.append((name, glued or None))
            return index + 1
        return _next_word(words, index, kind, name, given)
    return index + 1


def _long(words: Sequence[str], index: int, table: Kinds, given: Given) -> int:
    name, equals, value = words[index].partition("=")
    kind = table.get(name)
    if kind is None:
        return -1
    if equals:
        if kind == "flag":
            return -1
        given.append((name, value))
        return index + 1
    if kind in {"flag", "optional"}:
        given.append((name, None))
        return index + 1
    if kind == "equals":
        return -1
    return _next_word(words, index, kind, name, given)


def _next_word(words: Sequence[str], index: int, kind: Kind, name: str, given: Given) -> int:
    if index + 1 < len(words):
        given.append((name, words[index + 1]))
        return index + 2
    if kind != "last":
        return -1
    given.append((name, None))
    return index + 1
