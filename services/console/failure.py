"""How a command fails: one line and a hint on stderr, an exit code by convention, never a traceback."""

import asyncio
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final

import msgspec

from contracts.errors import FAILED, Rejected, exit_code_of, failure
from contracts.reply import RemoteRejected
from services.console.terminal import words_for

INTERRUPTED: Final = 130
TERMINATED: Final = 143
BROKEN_PIPE: Final = 141
_OWN_FIELDS: Final = frozenset({"class", "code", "message", "hint"})
_DETAIL_CHARS_MAX: Final = 400


def wire_of(error: BaseException) -> dict[str, Any] | None:
    """The wire error inside `error`, also inside an exception group; None when there is none."""
    for leaf in _leaves(error):
        if isinstance(leaf, Rejected):
            return leaf.to_wire()
        if isinstance(leaf, RemoteRejected):
            return leaf.error
    return None


def interrupted(error: BaseException) -> bool:
    """Whether `error` only says that the user pressed Ctrl-C."""
    return any(isinstance(leaf, KeyboardInterrupt) for leaf in _leaves(error))


def terminated(error: BaseException) -> bool:
    """Whether `error` only says that TERM unwound the command."""
    return all(isinstance(leaf, asyncio.CancelledError) for leaf in _leaves(error))


def unread(error: BaseException) -> bool:
    """Whether `error` only says that whoever read our output has enough of it."""
    return any(isinstance(leaf, BrokenPipeError) for leaf in _leaves(error))


def leave_unread() -> int:
    """The exit code of a command that nobody listens to. The interpreter must not try to flush its words again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return BROKEN_PIPE


def report(error: Mapping[str, Any], *, as_json: bool) -> int:
    """Print a wire error for people (and as JSON) and give its exit code."""
    detail = " ".join(f"{key}={_short(value)}" for key, value in error.items() if key not in _OWN_FIELDS)
    message = error.get("message") or "no reason was given"
    line = f"error: {error.get('code', 'internal')}: {message}" + (f" ({detail})" if detail else "")
    hint = str(error.get("hint") or "")
    for said in (line, f"hint: {hint}" if hint else ""):
        if said:
            sys.stderr.write(words_for(sys.stderr, said.replace("\n", " ")) + "\n")
    sys.stderr.flush()
    if as_json:
        sys.stdout.write(msgspec.json.encode({"error": dict(error)}).decode() + "\n")
        sys.stdout.flush()
    return exit_code_of(error)


def report_mistake(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook`: a mistake of ours as one line; HTDAG_DEBUG=1 shows where it happened."""
    if os.environ.get("HTDAG_DEBUG"):
        traceback.print_exception(kind, error, trace)
    leaf = next(_leaves(error))
    report(
        failure("internal", f"{type(leaf).__name__}: {leaf}", hint="run it again with HTDAG_DEBUG=1 and report it"),
        as_json="--json" in sys.argv,
    )
    sys.exit(FAILED)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _DETAIL_CHARS_MAX else text[:_DETAIL_CHARS_MAX] + "…"
