"""Results of tools within bounds: long texts are cut, and each says so where it was cut. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

TEXT_CHARS_MIN: Final = 200
"""What is left of the longest text at least; what still does not fit then is shown as the beginning of its JSON."""
_ENCODE: Final = msgspec.json.Encoder().encode


def fit(value: Any, bytes_max: int) -> tuple[Any, bool]:
    """The value, and whether it was cut, so that its JSON is no longer than `bytes_max`.

    Texts give way, the longest ones first: a long `stdout` does not cost the exit code behind it.
    """
    size = len(_ENCODE(value))
    if size <= bytes_max:
        return value, False
    longest = max((len(text) for text in _texts(value)), default=0)
    while longest > TEXT_CHARS_MIN:
        longest //= 2
        cut = _cut(value, longest)
        if len(_ENCODE(cut)) <= bytes_max:
            return _widest(value, longest, bytes_max), True
    text = _ENCODE(value).decode(errors="replace")
    return f"{text[: bytes_max // 4]}\n[… cut: {len(text)} characters in all]", True


def _widest(value: Any, fits: int, bytes_max: int) -> Any:
    """`fits` characters of each text fit, twice as many do not: the most in between, give or take a little."""
    low, high = fits, fits * 2
    while high - low > max(16, fits // 64):
        middle = (low + high) // 2
        if len(_ENCODE(_cut(value, middle))) <= bytes_max:
            low = middle
        else:
            high = middle
    return _cut(value, low)


def _texts(value: Any) -> list[str]:
    found: list[str] = []
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, Mapping):
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)
    return found


def _cut(value: Any, chars: int) -> Any:
    """A copy in which no text is longer; values are no deeper than JSON from outside may be."""
    if isinstance(value, str):
        if len(value) <= chars:
            return value
        # Both ends: how a program ended stands last.
        half = chars // 2
        return f"{value[:half]}\n[… cut: {len(value)} characters in all]\n{value[len(value) - half :]}"
    if isinstance(value, Mapping):
        return {name: _cut(item, chars) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item, chars) for item in value]
    return value
