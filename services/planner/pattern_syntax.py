"""The syntax of strategy patterns: a regular expression as a tree. Pure; see `pattern` for what is known."""

from dataclasses import dataclass
from typing import Final

REPEATS_MAX: Final = 200
GROUPS_DEEP_MAX: Final = 20


class PatternSyntaxError(ValueError):
    """A pattern is malformed; `position` counts characters from 0."""

    def __init__(self, reason: str, position: int) -> None:
        self.reason = reason
        self.position = position
        super().__init__(f"{reason} at {position}")


@dataclass(frozen=True, slots=True)
class CharClass:
    """A set of characters, case ignored: ranges, letters of `dws` (and `DWS`), perhaps negated."""

    ranges: tuple[tuple[str, str], ...]
    kinds: str = ""
    negated: bool = False

    def holds(self, char: str) -> bool:
        """Whether `char`, in lower case, is in the set."""
        return (self._has(char) or self._has(char.upper())) != self.negated

    def _has(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges if len(char) == 1) or any(
            _is_kind(kind, char) for kind in self.kinds
        )


@dataclass(frozen=True, slots=True)
class Assertion:
    """A place between characters: `^`, `$`, `b` (word boundary) or `B` (none)."""

    kind: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """Any of the branches."""

    branches: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The body `least` to `most` times; without end when `most` is None."""

    body: "Node"
    least: int
    most: int | None


Node = CharClass | Assertion | Sequence | Alternation | Repeat

_ANY: Final = CharClass((("\n", "\n"),), negated=True)
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_SIMPLE_REPEATS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def _is_kind(kind: str, char: str) -> bool:
    match kind:
        case "d" | "D":
            found = char.isdecimal()
        case "w" | "W":
            found = char.isalnum() or char == "_"
        case _:
            found = char.isspace()
    return found == kind.islower()


def parse(source: str) -> Node:
    """The tree of a pattern. Raises PatternSyntaxError."""
    reader = _Reader(source.removeprefix("(?i)"))
    node = reader.alternation(0)
    if not reader.at_end():
        raise PatternSyntaxError("a ) has no (", reader.position)
    return node


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self.position = 0

    def at_end(self) -> bool:
        return self.position >= len(self._source)

    def alternation(self, depth: int) -> Node:
        if depth > GROUPS_DEEP_MAX:
            raise PatternSyntaxError("groups are nested too deeply", self.position)
        branches = [self._sequence(depth)]
        while self._accept("|"):
            branches.append(self._sequence(depth))
        return branches[0] if len(branches) == 1 else Alternation(tuple(branches))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while not self.at_end() and self._peek() not in "|)":
            parts.append(self._repeated(self._atom(depth)))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self, atom: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return atom
        if isinstance(atom, Assertion):
            raise PatternSyntaxError("a place cannot be repeated", self.position)
        self._accept("?")  # lazy or greedy makes no difference to whether something occurs
        if self._bounds() is not None:
            raise PatternSyntaxError("a repeat cannot be repeated", self.position)
        return Repeat(atom, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        if self.at_end():
            return None
        simple = _SIMPLE_REPEATS.get(self._peek())
        if simple is not None:
            self.position += 1
            return simple
        return self._counted()

    def _counted(self) -> tuple[int, int | None] | None:
        end = self._source.find("}", self.position)
        if self._peek() != "{" or end < 0:
            return None
        low, comma, high = self._source[self.position + 1 : end].partition(",")
        if not all(part == "" or (part.isascii() and part.isdecimal()) for part in (low, high)) or not (low or comma):
            return None
        if not low and not high:
            return None
        least = int(low or 0)
        most = (int(high) if high else None) if comma else least
        if max(least, most or 0) > REPEATS_MAX or (most is not None and most < least):
            raise PatternSyntaxError(f"a count is above {REPEATS_MAX} or runs backwards", self.position)
        self.position = end + 1
        return least, most

    def _atom(self, depth: int) -> Node:
        start = self.position
        char = self._take()
        match char:
            case "(":
                return self._group(start, depth)
            case "[":
                return self._class(start)
            case "\\":
                return self._escape(start)
            case ".":
                return _ANY
            case "^" | "$":
                return Assertion(char)
            case "*" | "+" | "?":
                raise PatternSyntaxError("nothing to repeat", start)
            case _:
                return _literal(char)

    def _group(self, start: int, depth: int) -> Node:
        if self._accept("?") and not self._accept(":"):
            raise PatternSyntaxError("look-around, flags and named groups are not known here", start)
        node = self.alternation(depth + 1)
        if not self._accept(")"):
            raise PatternSyntaxError("a ( is not closed", start)
        return node

    def _escape(self, start: int) -> Node:
        char = self._take_escaped(start)
        if char in "dDwWsS":
            return CharClass((), kinds=char)
        if char in "bB":
            return Assertion(char)
        return _literal(self._plain(char, start))

    def _class(self, start: int) -> CharClass:
        negated = self._accept("^")
        ranges: list[tuple[str, str]] = []
        kinds = ""
        first = True
        while first or self._peek_in_class(start) != "]":
            first = False
            low = self._member(start)
            if len(low) > 1:
                kinds += low[1]
                continue
            high = low
            if self._source[self.position : self.position + 1] == "-" and self._source[self.position + 1 :][:1] != "]":
                self.position += 1
                high = self._member(start)
                if len(high) > 1 or high < low:
                    raise PatternSyntaxError("a range runs backwards", self.position)
            ranges.append((low, high))
        self.position += 1
        return CharClass(tuple(ranges), kinds, negated)

    def _member(self, start: int) -> str:
        """One character of a class, or a backslash with the letter of a kind."""
        char = self._peek_in_class(start)
        self.position += 1
        if char != "\\":
            return char
        escaped = self._take_escaped(start)
        return f"\\{escaped}" if escaped in "dDwWsS" else self._plain(escaped, start)

    def _plain(self, char: str, start: int) -> str:
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum():
            raise PatternSyntaxError(f"\\{char} is not known here", start)
        return char

    def _peek_in_class(self, start: int) -> str:
        if self.at_end():
            raise PatternSyntaxError("a [ is not closed", start)
        return self._peek()

    def _take_escaped(self, start: int) -> str:
        if self.at_end():
            raise PatternSyntaxError("a backslash stands at the end", start)
        return self._take()

    def _peek(self) -> str:
        return self._source[self.position]

    def _take(self) -> str:
        char = self._peek()
        self.position += 1
        return char

    def _accept(self, char: str) -> bool:
        if self._source.startswith(char, self.position):
            self.position += 1
            return True
        return False


def _literal(char: str) -> CharClass:
    return CharClass(((char, char), (char.lower()[:1], char.lower()[:1])))
