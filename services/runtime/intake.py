"""Bytes from outside to a message: every way in which they can be wrong has its own code and names the field."""

import re
from typing import Final, TypeVar

import msgspec

from contracts.errors import Rejected
from contracts.limits import JSON_DEPTH_MAX, REQUEST_BYTES_MAX

T = TypeVar("T")

_PATH: Final = re.compile(r" - at `\$?\.?(.*?)`\Z")
_NAMED: Final = re.compile(r"field `([^`]+)`")
_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_STRING: Final = re.compile(rb'"[^"]*"')
_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{}'))


def read(data: bytes, decoder: "msgspec.json.Decoder[T]", *, bytes_max: int = REQUEST_BYTES_MAX) -> T:
    """The message in `data`; nothing at all reads as `{}`.

    Raises Rejected: too_large, bad_json (no JSON, or nested deeper than JSON_DEPTH_MAX), bad_request with `field`.
    """
    if len(data) > bytes_max:
        raise Rejected("too_large", max=bytes_max, requested=len(data))
    try:
        message = decoder.decode(data or b"{}")
    except msgspec.ValidationError as error:
        _check_json(data or b"{}")
        field = field_of(str(error))
        code = "unknown_node_type" if field.endswith("node.type") else "bad_request"
        raise Rejected(code, _PATH.sub("", str(error)), field=field) from error
    except msgspec.DecodeError as error:
        raise Rejected("bad_json", f"the request is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise Rejected("bad_json", "the request is not UTF-8") from error
    except RecursionError as error:
        raise _too_deep() from error
    if deeper_than(data, JSON_DEPTH_MAX):
        raise _too_deep()
    return message


def field_of(text: str) -> str:
    """The dotted path that a msgspec message complains about: `tasks[0].id`; "" when it is the whole value."""
    path, named = _PATH.search(text), _NAMED.search(text)
    parts = (path.group(1) if path else "", named.group(1) if named else "")
    return ".".join(filter(None, parts))


def deeper_than(data: bytes, depth_max: int) -> bool:
    """Whether well-formed JSON nests arrays and objects deeper than this. Works on whole buffers, so 8 MB is quick."""
    if data.count(b"[") + data.count(b"{") <= depth_max:
        return False
    bare = _ESCAPE.sub(b"", data) if b"\\" in data else data
    bare = _STRING.sub(b"", bare.translate(None, _NO_STRUCTURE)).translate(None, b'"')
    for _ in range(depth_max):
        # Each round removes the innermost level.
        shorter = _PAIRS.sub(b"", bare)
        if not shorter:
            return False
        bare = shorter
    return True


_PAIRS: Final = re.compile(rb"(?:\[\]|\{\})+")


def _check_json(data: bytes) -> None:
    """The typed decoder stops at the first wrong value, so it may not have seen that the rest is no JSON at all."""
    try:
        msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise Rejected("bad_json", f"the request is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise Rejected("bad_json", "the request is not UTF-8") from error
    except RecursionError as error:
        raise _too_deep() from error


def _too_deep() -> Rejected:
    return Rejected("bad_json", "the request is nested too deep", max=JSON_DEPTH_MAX)
