"""What a script may not name, found by reading its text.

The sandbox itself refuses these names when a script reaches for them; the lint refuses them before the script is
stored. It is a courtesy to the author, not the wall.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

# Standard Lua that the sandbox does not offer, and what lupa would add.
REFUSED: Final = frozenset(
    {"collectgarbage", "debug", "dofile", "getfenv", "io", "load", "loadfile", "loadstring", "lupa", "module", "os"}
    | {"package", "python", "require", "setfenv"}
)
REFUSED_IN_STRING: Final = frozenset({"dump"})
REFUSED_IN_MATH: Final = frozenset({"randomseed"})
# Names of foreign hosts. They are no Lua, so they count only in a script that does not compile, and only written
# as there: `:gen_tcp`, `System.cmd`.
ERLANG: Final = frozenset({"erlang", "ets", "gen_sctp", "gen_tcp", "gen_udp", "httpc", "inets", "os", "rpc", "ssl"})
ELIXIR: Final = frozenset({"Code", "File", "IO", "Node", "Port", "Process", "System"})

# No alternative can match the empty string and each starts with another character, so one pass reads the script.
TOKEN: Final = re.compile(
    r"(?P<skip>\s+|--\[(?P<ceq>=*)\[.*?\](?P=ceq)\]|--[^\n]*)"
    r"|(?P<text>\[(?P<seq>=*)\[.*?\](?P=seq)\]|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<sign>\d[\w.]*|\.\.\.?|::|==|~=|<=|>=|.)",
    re.DOTALL,
)
COLON_FIELD: Final = re.compile(r"[{,]\s*[^\W\d]\w*\s*:(?!:)")


class Violation(NamedTuple):
    """A refused name and the line, counted from 1, where it stands."""

    name: str
    line: int


class Token(NamedTuple):
    """One word or sign of a script; strings keep their quotes."""

    text: str
    kind: str
    line: int


def tokens(source: str) -> Iterator[Token]:
    """Cut a script into words and signs, without blanks and comments. Never fails, also on text that is no Lua."""
    line = 1
    for match in TOKEN.finditer(source):
        kind = "text" if match["text"] else "name" if match["name"] else "sign"
        if not match["skip"]:
            yield Token(match[0], kind, line)
        line += match[0].count("\n")


def violation(source: str) -> Violation | None:
    """Return the first refused name that a script which compiles reads as a global, or None."""
    words = list(tokens(source))
    own = _declared(words)
    for at, word in enumerate(words):
        if word.kind == "name" and word.text in REFUSED and _is_global(words, at, own):
            return Violation(word.text, word.line)
        if word.kind == "text" and word.text[1:-1] in REFUSED and _before(words, at) in (("_G", "["), ("_ENV", "[")):
            return Violation(word.text[1:-1], word.line)
        if word.text in REFUSED_IN_STRING and _before(words, at) == ("string", "."):
            return Violation(f"string.{word.text}", word.line)
        if word.text in REFUSED_IN_MATH and _before(words, at) == ("math", "."):
            return Violation(f"math.{word.text}", word.line)
    return None


def foreign(source: str) -> Violation | None:
    """Return the first name of a host in a script that does not compile, or None: then it is only a slip."""
    words = list(tokens(source))
    own = _declared(words)
    for at, word in enumerate(words):
        if word.kind != "name":
            continue
        previous, following = _before(words, at)[1], words[at + 1].text if at + 1 < len(words) else ""
        erlang = word.text in ERLANG and previous == ":" and following == "."
        elixir = word.text in ELIXIR and following == "."
        if erlang or elixir or (word.text in REFUSED and _is_global(words, at, own)):
            return Violation(word.text, word.line)
    return None


def writes_fields_with_colon(line: str) -> bool:
    """Tell whether a line writes `{ name: value }`, as other languages do, where Lua writes `{ name = value }`."""
    return COLON_FIELD.search(line) is not None


def _before(words: list[Token], at: int) -> tuple[str, str]:
    return (words[at - 2].text if at > 1 else "", words[at - 1].text if at > 0 else "")


def _is_global(words: list[Token], at: int, own: frozenset[str]) -> bool:
    name = words[at].text
    owner, previous = _before(words, at)
    following = words[at + 1].text if at + 1 < len(words) else ""
    if previous in (".", ":"):
        return previous == "." and owner in ("_G", "_ENV")
    if previous in ("{", ",", ";") and following == "=":
        return False  # a field of a table
    if previous in ("local", "goto", "::") or (previous in ("{", ",") and following == ":"):
        return False  # the second is a field too, as other languages write it
    takes_the_global = previous == "=" and owner == name  # local os = os
    return takes_the_global or name not in own


def _declared(words: list[Token]) -> frozenset[str]:
    """Names that the script declares itself anywhere: locals, loop variables and parameters."""
    own: set[str] = set()
    at = 0
    while at < len(words):
        word = words[at].text
        at += 1
        if word == "function":
            while at < len(words) and words[at].text != "(":
                at += 1
            at += 1
        elif word not in ("local", "for"):
            continue
        while at < len(words) and (words[at].kind == "name" or words[at].text in (",", "<", ">")):
            if words[at].text in ("function", "in"):
                break
            own.add(words[at].text)
            at += 1
            if words[at - 1].kind == "name" and (at == len(words) or words[at].text not in (",", "<", ">")):
                break
    return frozenset(own)
