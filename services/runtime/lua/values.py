"""Data across the border between Python and Lua: JSON values only, bounded in depth, number and size."""

import math
from collections.abc import Callable
from typing import Any, Final

from lupa.lua54 import lua_type

DEPTH_MAX: Final = 100
NODES_MAX: Final = 100_000
BYTES_MAX: Final = 4 << 20


class BadValue(Exception):
    """A value that is no JSON data or exceeds a bound; the text says which and where."""


class Reader:
    """Copies one result out of Lua. A table with the keys 1..n is a list; an empty table is an empty list.

    Lua does not tell an empty list from an empty map: who expects a map takes `[]` for `{}`. Only what came in as `{}`
    goes back as that: `is_object` knows those tables.
    """

    def __init__(self, is_object: Callable[[Any], bool]) -> None:
        self._is_object = is_object
        self._nodes = 0
        self._bytes = 0

    def read(self, value: Any, depth: int = 0) -> Any:
        """Return the value as JSON data; raises BadValue."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise BadValue(f"the result has more than {NODES_MAX} values")
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if kind is int:
            return value
        if kind is float:
            if not math.isfinite(value):
                raise BadValue("the result holds a number that is not finite")
            return value
        if kind is str:
            self._spend(value)
            return value
        lua_kind = lua_type(value)
        if lua_kind != "table":
            raise BadValue(f"the result holds a {lua_kind or 'host object'}; only data comes back")
        return self._read_table(value, depth + 1)

    def _read_table(self, table: Any, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise BadValue(f"the result is nested deeper than {DEPTH_MAX}, or a table holds itself")
        try:
            fields = {key: self.read(value, depth) for key, value in table.items()}
        except UnicodeDecodeError:
            raise BadValue("the result holds text that is not UTF-8") from None
        size = len(fields)
        if not size and self._is_object(table):
            return {}
        if all(type(key) is int for key in fields) and (not size or (min(fields) == 1 and max(fields) == size)):
            return [fields[index] for index in range(1, size + 1)]
        named: dict[str, Any] = {}
        for key, value in fields.items():
            if type(key) not in (str, int):
                raise BadValue("the result has a table key that is neither text nor a whole number")
            named[self._spend(str(key))] = value
        if len(named) != size:
            raise BadValue("the result has a table in which a number and a text name the same key")
        return named

    def _spend(self, text: str) -> str:
        self._bytes += len(text)
        if self._bytes > BYTES_MAX:
            raise BadValue(f"the result is larger than {BYTES_MAX} bytes")
        return text


def with_objects(value: Any, make: Callable[[], Any]) -> Any:
    """Return JSON data in which `make` has made each empty object."""
    if isinstance(value, dict):
        return {key: with_objects(item, make) for key, item in value.items()} if value else make()
    if isinstance(value, list):
        return [with_objects(item, make) for item in value]
    return value


def within_lua(value: Any) -> Any:
    """Return JSON data in which whole numbers that Lua cannot hold have become floats."""
    if isinstance(value, dict):
        return {key: within_lua(item) for key, item in value.items()}
    if isinstance(value, list):
        return [within_lua(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value
