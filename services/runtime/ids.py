"""Identifiers as an input: random, sortable ones and counted ones."""

import itertools
import secrets
import time
from typing import Final, Protocol

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]


class Ids(Protocol):
    """Where new identifiers come from."""

    def new(self) -> str:
        """One token of `[A-Za-z0-9]`, never given before."""
        ...


class RandomIds:
    """ULID-shaped ids: 48 bits of milliseconds, then 80 random bits, so that they sort by time."""

    def new(self) -> str:
        """26 characters of Crockford's base 32."""
        value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
        return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


class CountingIds:
    """id-1, id-2, …: for tests."""

    def __init__(self, prefix: str = "id") -> None:
        self._prefix = prefix
        self._count = itertools.count(1)

    def new(self) -> str:
        """The next one."""
        return f"{self._prefix}-{next(self._count)}"
