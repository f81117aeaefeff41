"""The lua tool: a chunk of source and its arguments. What the chunk may reach is for the sandbox to bound."""

import math
from typing import Any, Final

from services.policy_gateway.decision.plans import LuaPlan
from services.policy_gateway.decision.shape import bad_args, is_text, table_of, unknown_key
from services.policy_gateway.decision.verdict import Deny

SRC_BYTES_MAX: Final = 1 << 20
ARGV_CHARS_MAX: Final = 8 << 20
ARGV_DEPTH_MAX: Final = 100
ARGV_NODES_MAX: Final = 100_000
INTEGER_BITS: Final = 63
_KNOWN: Final = frozenset({"src", "argv"})


def lua(args: dict[str, Any]) -> LuaPlan | Deny:
    """Judge a chunk."""
    src = args.get("src")
    if type(src) is not str:
        return bad_args("src", "the Lua source as text")
    try:
        size = len(src) if src.isascii() else len(src.encode())
    except UnicodeEncodeError:
        return bad_args("src", "Unicode text without lone surrogates")
    if size > SRC_BYTES_MAX:
        return Deny("too_large", "lua.size", {"field": "src", "bytes_max": SRC_BYTES_MAX, "bytes": size})
    if src[:1] == "\x1b":
        return Deny("lua_restricted", "lua.bytecode", {"reason": "bytecode is closed"})
    if "\0" in src:
        return bad_args("src", "no NUL characters")
    argv = args.get("argv", [])
    if type(argv) is not list:
        return bad_args("argv", "a list")
    wrong = _wrong_data(argv)
    if wrong is not None:
        return bad_args("argv", wrong)
    return unknown_key(args, _KNOWN) or LuaPlan(src, tuple(argv))


def _wrong_data(argv: list[Any]) -> str | None:
    """Why `argv` is no bounded JSON data. Iterative: depth is data here, not stack."""
    nodes = chars = 0
    level: list[Any] = argv
    for _ in range(ARGV_DEPTH_MAX):
        if not level:
            return None
        nodes += len(level)
        if nodes > ARGV_NODES_MAX:
            return f"at most {ARGV_NODES_MAX} values"
        deeper: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is list:
                deeper.extend(value)
            elif kind is dict:
                deeper.extend(value)
                deeper.extend(value.values())
                if table_of(value) is None:
                    return "objects with text keys"
            elif kind is str:
                chars += len(value)
                if not is_text(value):
                    return "Unicode text without lone surrogates"
            elif not _is_scalar(kind, value):
                return "JSON data: finite numbers, integers of 64 bits"
        if chars > ARGV_CHARS_MAX:
            return f"at most {ARGV_CHARS_MAX} characters"
        level = deeper
    return None if not level else f"at most {ARGV_DEPTH_MAX} levels"


def _is_scalar(kind: type, value: Any) -> bool:
    if kind is int:
        return bool(value.bit_length() <= INTEGER_BITS)
    return math.isfinite(value) if kind is float else kind is bool or value is None
