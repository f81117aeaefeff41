"""What a command is given to read: a file or standard input, never more than a request may hold, and JSON in it."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import JSON_DEPTH_MAX, REQUEST_BYTES_MAX

STDIN: Final = "/dev/stdin"
"""What `-` on the command line becomes."""


def read(argument: str) -> bytes:
    """The bytes of a file, or of standard input; never more than a request may hold."""
    try:
        if argument == STDIN:
            data = sys.stdin.buffer.read(REQUEST_BYTES_MAX + 1)
        else:
            with Path(argument).open("rb") as file:
                data = file.read(REQUEST_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise Rejected("not_found", f"there is no file {argument}", hint="check the path") from error
    except OSError as error:
        raise Rejected("bad_request", f"cannot read {argument}: {error.strerror}", hint="check the path") from error
    if len(data) > REQUEST_BYTES_MAX:
        raise Rejected("too_large", f"{argument} is larger than {REQUEST_BYTES_MAX} bytes", max=REQUEST_BYTES_MAX)
    return data


def read_text(argument: str) -> str:
    """The same as text; raises bad_request when it is not UTF-8."""
    try:
        return read(argument).decode()
    except UnicodeDecodeError as error:
        raise Rejected("bad_request", f"{argument} is not UTF-8 at byte {error.start}", byte=error.start) from error


def parse(data: bytes, name: str) -> Any:
    """The JSON in `data`; raises Rejected("bad_json") that says where it breaks."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise _located(data, name) from None


def _located(data: bytes, name: str) -> Rejected:
    """Ask the slower parser of the standard library where the mistake is."""
    hint = "one JSON document, UTF-8"
    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        return Rejected("bad_json", f"{name} {where}: {error.msg}", hint=hint, line=error.lineno, column=error.colno)
    except UnicodeDecodeError as error:
        return Rejected("bad_json", f"{name} is not UTF-8 at byte {error.start}", hint=hint, byte=error.start)
    except RecursionError:
        return Rejected("bad_json", f"{name} is nested deeper than {JSON_DEPTH_MAX}", hint="flatten it")
    return Rejected("bad_json", f"{name} is not strict JSON (NaN, Infinity or a doubled value)", hint=hint)
