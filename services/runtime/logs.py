"""Structured logs: one JSON object per line on standard error, readable text when a person looks at a terminal.

Every line has `ts`, `level`, `msg`, `service`, `instance`; `trace_id` and `span_id` inside a trace; `run_id` and
`task_id` where they are bound. Lines of the standard library's loggers come out the same way. Values of keys that
look secret are hidden, whoever logs them, and tracebacks never show local variables.
"""

import contextlib
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO

import msgspec

from contracts.errors import CATALOGUE
from services.runtime import telemetry
from services.runtime.later import without
from services.runtime.redaction import HIDDEN, Masking, masked, named_items
from services.runtime.secret_names import secret_under

with without("rich"):
    import structlog
    from structlog.contextvars import merge_contextvars
    from structlog.tracebacks import ExceptionDictTransformer

Format = Literal["auto", "json", "text"]
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
DEPTH_MAX: Final = 6
"""Nesting that is searched for secrets; what lies deeper is left out."""
LINE_CHARS_MAX: Final = 16_000
"""Longer strings are cut: a log line is no place for a payload."""
SECRET_CHARS: Final = 512
"""So far beyond the cut a line is searched: no shape of a secret needs more to be known."""

_ENCODE: Final = msgspec.json.Encoder(enc_hook=repr).encode
_FIRST: Final = ("ts", "level", "msg", "service", "instance")


def configure(
    service: str, instance: str = "", *, level: str = "info", fmt: Format = "auto", stream: TextIO | None = None
) -> "structlog.typing.FilteringBoundLogger":
    """Set up logging of this process and return its logger. Calling it again replaces the setting."""
    stream = sys.stderr if stream is None else stream
    who = {"service": service, "instance": instance} if instance else {"service": service}
    as_text = fmt == "text" or (fmt == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _whose(who),
        _trace_ids,
    ]
    ending: list[structlog.typing.Processor] = (
        # The traceback becomes text first, so that it is searched too.
        [
            structlog.processors.format_exc_info,
            redact,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
        if as_text
        else [
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            redact,
            structlog.processors.EventRenamer("msg"),
            _json_line,
        ]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(_Unbreakable(stream)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(handlers=[handler], level=LEVELS[level], force=True)
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


class _Unbreakable:
    """A stream whose reader may be gone: the line is lost, the process lives on and can still stop cleanly."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide what looks secret, at any depth, and cut what is too long."""
    for key, value in event.items():
        event[key] = _clean(key, value, 0)
    return event


def looks_secret(key: str, value: Any) -> bool:
    """Whether a value must not be shown under this key. `code` is one unless it is a code of the error catalogue."""
    name = key.lower()
    if name == "code":
        return value not in CATALOGUE if isinstance(value, str) else value is not None
    if name.endswith("token") and isinstance(value, int):
        return False
    return secret_under(key, value)


def _clean(key: str, value: Any, depth: int) -> Any:
    if value is None:
        return None
    if looks_secret(key, value):
        return HIDDEN
    if isinstance(value, str):
        # Hidden before it is cut: half a secret looks like none.
        shown = masked(value[: LINE_CHARS_MAX + SECRET_CHARS])
        if len(value) <= LINE_CHARS_MAX:
            return shown
        return f"{shown[:LINE_CHARS_MAX]}… ({len(value)} characters)"
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        if depth >= DEPTH_MAX:
            return "…"
        return {masked(key): _clean(name, item, depth + 1) for key, name, item in named_items(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return Masking().words(list(value), lambda item: _clean("", item, depth + 1)) if depth < DEPTH_MAX else "…"
    return value


def _whose(who: Mapping[str, str]) -> "structlog.typing.Processor":
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, value in who.items():
            event.setdefault(key, value)
        return event

    return add


def _trace_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    ids = telemetry.ids()
    if ids is not None:
        event["trace_id"], event["span_id"] = ids
    return event


def _json_line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    ordered = {key: event.pop(key) for key in _FIRST if key in event}
    return _ENCODE({**ordered, **event}).decode()
