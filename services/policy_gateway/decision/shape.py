"""Shapes: what arrives may be any object at all. Only exact JSON types are looked at, so nothing foreign ever runs."""

import math
from typing import Any, Final

from services.policy_gateway.decision.verdict import Deny

SHOWN_CHARS_MAX: Final = 250
"""A little less than the audit shows of a text."""
SHOWN_ITEMS_MAX: Final = 64
SHOWN_DEPTH_MAX: Final = 3
INTEGER_MAX: Final = (1 << 53) - 1
"""The largest integer that every JSON reader keeps exact; larger ones are shown as texts."""
_INTEGER_SHOWN_END: Final = 10**40


def table_of(value: Any) -> dict[str, Any] | None:
    """`value` when it is a plain object with text keys, else None."""
    if type(value) is not dict:
        return None
    for key in value:
        if type(key) is not str:
            return None
    return value


def is_text(value: Any) -> bool:
    """Whether `value` is a text that can be written down: no lone surrogates."""
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any, depth: int = 0) -> Any:
    """`value` as a detail may carry it: JSON data, short, whatever it was."""
    kind = type(value)
    if kind is str:
        short = value if len(value) <= SHOWN_CHARS_MAX else value[:SHOWN_CHARS_MAX] + "…"
        return short if short.isascii() else short.encode("utf-8", "replace").decode()
    if kind is bool or value is None:
        return value
    if kind is int:
        if -INTEGER_MAX <= value <= INTEGER_MAX:
            return value
        return str(value) if abs(value) < _INTEGER_SHOWN_END else "an integer beyond 10^40"
    if kind is float:
        return value if math.isfinite(value) else "no finite number"
    if depth == SHOWN_DEPTH_MAX:
        return "…"
    if kind is list or kind is tuple:
        return [shown(item, depth + 1) for item in value[:SHOWN_ITEMS_MAX]]
    if kind is dict:
        keys = [key for key in value if type(key) is str][:SHOWN_ITEMS_MAX]
        return {shown(key): shown(value[key], depth + 1) for key in keys}
    return "no JSON value"


def bad_args(field: str, reason: str, **more: Any) -> Deny:
    """The arguments have the wrong shape; `field` says where."""
    return Deny(
        "bad_args", f"args.{field.split('.', 1)[0].split('[', 1)[0]}", {"field": field, "reason": reason} | more
    )


def unknown_key(args: dict[str, Any], known: frozenset[str]) -> Deny | None:
    """Refuse keys that nobody knows: they would be ignored in silence."""
    if args.keys() <= known:
        return None
    stranger = shown(min(args.keys() - known))
    return Deny("bad_args", "args.known", {"field": stranger, "reason": "no such key", "known": sorted(known)})
