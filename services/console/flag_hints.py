"""A refusal that names a field of a request, in the words of whoever typed a flag: which flag, and its bounds."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from contracts.errors import CATALOGUE

_MILLISECONDS: Final = "_ms"


def in_flags(error: Mapping[str, Any], flags: Collection[str]) -> dict[str, Any]:
    """The error, with a hint about the flag that carries its field, if the command has one and the hint says less."""
    kind = CATALOGUE.get(str(error.get("code")))
    field = str(error.get("field", "")).rpartition(".")[2]
    flag, scale = "--" + field.replace("_", "-"), 1
    if flag not in flags and field.endswith(_MILLISECONDS):
        flag, scale = "--" + field.removesuffix(_MILLISECONDS).replace("_", "-"), 1000
    if flag not in flags or kind is None or error.get("hint") != kind.hint:
        return dict(error)
    low, high = (_bound(error.get(name), scale) for name in ("min", "max"))
    unit = " seconds" if scale > 1 else ""
    if low and high:
        hint = f"{flag} takes {low} to {high}{unit}"
    elif low or high:
        hint = f"{flag} takes {low} or more{unit}" if low else f"{flag} takes {high} or less{unit}"
    else:
        hint = f"look at {flag}"
    return {**error, "hint": hint}


def _bound(value: Any, scale: int) -> str:
    """As it would be typed; empty when there is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    return f"{value / scale:.15g}"
