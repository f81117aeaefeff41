"""Regular expressions that cannot hang: a strategy's pattern, searched in a description, case ignored.

The standard module backtracks, so `(a+)+b` written into a strategy would stop a planner for hours. Here a pattern
becomes an automaton that reads each character once. Known: literals, `.`, classes, `\\d \\w \\s \\b` and their
opposites, groups, `|`, `* + ? {m,n}`, `^`, `$`. Unknown: look-around and back references.
"""

from collections.abc import Callable
from typing import Final

from contracts.errors import Rejected
from services.planner.pattern_syntax import (
    Alternation,
    Assertion,
    CharClass,
    Node,
    PatternSyntaxError,
    Repeat,
    Sequence,
    parse,
)

PATTERN_CHARS_MAX: Final = 500
PROGRAM_STEPS_MAX: Final = 1_000
TEXT_CHARS_MAX: Final = 4_000
"""Only the beginning of a description decides which strategy it gets."""
_CACHE_ENTRIES_MAX: Final = 20_000

_START, _WORD, _OTHER = "start", "word", "other"
_State = tuple[frozenset[int], str]
_Step = CharClass | Assertion | tuple[int, ...] | None
"""One step: read a character, check a place, go on at several steps, or (None) the pattern has matched."""


class Pattern:
    """A compiled pattern. Raises Rejected("bad_request") with `field` and `position` when it is malformed."""

    def __init__(self, source: str) -> None:
        if len(source) > PATTERN_CHARS_MAX:
            raise Rejected("bad_request", f"pattern is longer than {PATTERN_CHARS_MAX} characters", field="pattern")
        self.source = source
        self._program: list[_Step] = []
        try:
            self._emit(parse(source))
        except PatternSyntaxError as error:
            raise Rejected(
                "bad_request", f"pattern: {error.reason}", field="pattern", position=error.position
            ) from error
        self._program.append(None)
        self._next: dict[tuple[_State, str], _State | None] = {}

    def search(self, text: str) -> bool:
        """Whether the pattern occurs anywhere in the first TEXT_CHARS_MAX characters of `text`."""
        state: _State = (frozenset((0,)), _START)
        for char in text[:TEXT_CHARS_MAX].lower():
            key = (state, char)
            if key in self._next:
                following = self._next[key]
            else:
                following = self._step(state, char)
                if len(self._next) >= _CACHE_ENTRIES_MAX:
                    self._next.clear()
                self._next[key] = following
            if following is None:
                return True
            state = following
        return self._reach(state, None) is None

    def _step(self, state: _State, char: str) -> _State | None:
        readers = self._reach(state, char)
        if readers is None:
            return None
        steps = {0}
        for number in readers:
            step = self._program[number]
            if isinstance(step, CharClass) and step.holds(char):
                steps.add(number + 1)
        return frozenset(steps), _WORD if _is_word(char) else _OTHER

    def _reach(self, state: _State, following: str | None) -> list[int] | None:
        """The reading steps that can be reached without reading; None when the end of the pattern can."""
        steps, before = state
        seen = set(steps)
        todo = list(steps)
        readers = []
        while todo:
            number = todo.pop()
            step = self._program[number]
            if step is None:
                return None
            if isinstance(step, CharClass):
                readers.append(number)
                continue
            if isinstance(step, Assertion):
                targets: tuple[int, ...] = (number + 1,) if _holds_at(step, before, following) else ()
            else:
                targets = step
            for target in targets:
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return readers

    def _emit(self, node: Node) -> None:
        if len(self._program) > PROGRAM_STEPS_MAX:
            raise PatternSyntaxError("it is too complex once its counts are written out", 0)
        match node:
            case CharClass() | Assertion():
                self._program.append(node)
            case Sequence():
                for part in node.parts:
                    self._emit(part)
            case Alternation():
                self._emit_alternation(node)
            case Repeat():
                self._emit_repeat(node)

    def _emit_alternation(self, node: Alternation) -> None:
        fork = self._reserve()
        starts, ends = [], []
        for branch in node.branches:
            starts.append(len(self._program))
            self._emit(branch)
            ends.append(self._reserve())
        self._program[fork] = tuple(starts)
        for end in ends:
            self._program[end] = (len(self._program),)

    def _emit_repeat(self, node: Repeat) -> None:
        for _ in range(node.least):
            self._emit(node.body)
        if node.most is None:
            fork = self._reserve()
            self._emit(node.body)
            self._program.append((fork,))
            self._program[fork] = (fork + 1, len(self._program))
            return
        forks = []
        for _ in range(node.most - node.least):
            forks.append(self._reserve())
            self._emit(node.body)
        for fork in forks:
            self._program[fork] = (fork + 1, len(self._program))

    def _reserve(self) -> int:
        self._program.append(())
        return len(self._program) - 1


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _at_boundary(before: str, following: str | None) -> bool:
    return (before == _WORD) != (following is not None and _is_word(following))


_PLACES: Final[dict[str, Callable[[str, str | None], bool]]] = {
    "^": lambda before, _: before == _START,
    "$": lambda _, following: following is None,
    "b": _at_boundary,
    "B": lambda before, following: not _at_boundary(before, following),
}


def _holds_at(assertion: Assertion, before: str, following: str | None) -> bool:
    return _PLACES[assertion.kind](before, following)
