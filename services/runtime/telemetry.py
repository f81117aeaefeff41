"""Trace context: carried always, recorded only when an exporter is asked for.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_TRACES_EXPORTER` nothing of OpenTelemetry is imported; an incoming
`traceparent` still travels on to everything that is sent while it is handled. With one of them, spans go out by OTLP
(http/protobuf) under the names of the messaging and GenAI conventions: `process {template}`, `publish {template}`,
`chat {model}`. Templates, never raw subjects: a span name holds no id.
"""

import asyncio
import contextlib
import logging
import os
import re
import threading
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from services.runtime.redaction import masked, masked_tree

TRACEPARENT: Final = "traceparent"
_FORM: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
SHUTDOWN_S: Final = 2.0
COLLECTOR: Final = "http://localhost:4318"
"""Where OTLP goes when nobody says where."""

SpanKind = Literal["internal", "client", "server", "producer", "consumer"]

_current: ContextVar[str] = ContextVar("htdag_traceparent", default="")
_tracer: Any = None
_provider: Any = None


def wanted(env: Mapping[str, str] | None = None) -> bool:
    """Whether the environment asks for traces."""
    env = os.environ if env is None else env
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return bool(env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or env.get("OTEL_TRACES_EXPORTER"))


def collector_port(env: Mapping[str, str]) -> int | None:
    """The port that spans of a process with this environment go to; None when none are sent or nobody knows where."""
    if not wanted(env):
        return None
    place = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or COLLECTOR
    try:
        scheme, port = urlsplit(place).scheme, urlsplit(place).port
    except ValueError:
        return None
    return port or (443 if scheme == "https" else 80)


def start(service: str, instance: str, *, exporter: Any = None) -> bool:
    """Set up the tracer when the environment (or an `exporter`) asks for it; True when spans are recorded now."""
    global _tracer, _provider  # noqa: PLW0603  # one tracer per process, as OpenTelemetry has it
    if exporter is None and not wanted():
        return False
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or f"htdag-{service}"
    resource = Resource.create({"service.name": name, "service.instance.id": instance})
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    # While the collector is away it would warn at every try; the error at the end of the tries is enough.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    if exporter is not None:
        _provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        _provider.add_span_processor(BatchSpanProcessor(_exporter_of(os.environ.get("OTEL_TRACES_EXPORTER", ""))))
    _tracer = _provider.get_tracer("htdag")
    return True


def recording() -> bool:
    """Whether spans are recorded: only then is it worth while to collect what they say."""
    return _tracer is not None


async def stop() -> None:
    """Send what waits, for at most 2 s, and record no more."""
    global _tracer, _provider
    provider, _tracer, _provider = _provider, None, None
    if provider is None:
        return
    loop, sent = asyncio.get_running_loop(), asyncio.Event()

    def send() -> None:
        provider.shutdown()
        # The loop may be closed by the time a collector that hangs gives up.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(sent.set)

    # The exporter blocks and tries again for many seconds; a daemon thread of its own cannot hold up the process.
    threading.Thread(target=send, name="last-spans", daemon=True).start()
    try:
        async with asyncio.timeout(SHUTDOWN_S):
            await sent.wait()
    except TimeoutError:
        logging.getLogger(__name__).warning("spans_lost: the collector does not answer")


def extract(headers: Mapping[str, str] | None) -> str:
    """The well-formed traceparent in `headers`, else ""."""
    value = headers.get(TRACEPARENT, "") if headers else ""
    return value if value and _FORM.match(value) else ""


def inject(headers: MutableMapping[str, str]) -> None:
    """Put the current trace context into `headers`; does nothing when there is none."""
    current = _current.get()
    if current:
        headers[TRACEPARENT] = current


def carrying(headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """`headers` for a message that is sent now: with the current trace context, unless they have one."""
    current = _current.get()
    if not current or (headers and TRACEPARENT in headers):
        return headers
    return {**(headers or {}), TRACEPARENT: current}


@contextmanager
def under(traceparent: str) -> Iterator[None]:
    """Work in this trace context and in no other; in none when it is empty."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> str:
    """The traceparent under which this task works, or ""."""
    return _current.get()


def ids() -> tuple[str, str] | None:
    """Trace id and span id of the current context, for logs."""
    current = _current.get()
    return (current[3:35], current[36:52]) if current else None


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = "internal",
    headers: Mapping[str, str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    links: tuple[str, ...] = (),
) -> Iterator[Any]:
    """Work under a span named `name`, a child of the context in `headers` or else of the current one.

    Yields the OpenTelemetry span, or None when nothing is recorded. `links` are traceparents that are referred to and
    not continued (a replay refers to what it replays). An exception marks the span and goes on.
    """
    parent = extract(headers) or _current.get()
    if _tracer is None:
        token = _current.set(parent)
        try:
            yield None
        finally:
            _current.reset(token)
        return
    with _recorded(name, kind, parent, attributes, links) as recorded:
        yield recorded


@contextmanager
def _recorded(
    name: str, kind: SpanKind, parent: str, attributes: Mapping[str, Any] | None, links: tuple[str, ...]
) -> Iterator[Any]:
    from opentelemetry import context, trace

    around = (
        trace.set_span_in_context(trace.NonRecordingSpan(_context_of(parent)), context.Context()) if parent else None
    )
    with _tracer.start_as_current_span(
        name,
        context=around,
        kind=trace.SpanKind[kind.upper()],
        attributes=masked_tree(attributes or {}),
        # The library would keep the words of an error as they are.
        record_exception=False,
        set_status_on_exception=False,
        links=[trace.Link(_context_of(link)) for link in links if _FORM.match(link)],
    ) as recorded:
        made = recorded.get_span_context()
        token = _current.set(f"00-{made.trace_id:032x}-{made.span_id:016x}-{int(made.trace_flags):02x}")
        try:
            yield recorded
        except Exception as error:
            _mark_failed(recorded, error)
            raise
        finally:
            _current.reset(token)


def mark_error(recorded: Any, code: str) -> None:
    """Say of a span, if there is one, that it ended badly: also where what ended it is no exception, but a deadline."""
    if recorded is not None:
        from opentelemetry.trace import Status, StatusCode

        recorded.set_status(Status(StatusCode.ERROR, code))


def _mark_failed(recorded: Any, error: Exception) -> None:
    """Tell a span's error as the conventions want it, without the secrets in its words."""
    from opentelemetry.trace import Status, StatusCode

    message = masked(str(error))
    trace = masked("".join(traceback.format_exception(error)))
    told = {"exception.type": type(error).__qualname__, "exception.message": message, "exception.stacktrace": trace}
    recorded.add_event("exception", told)
    recorded.set_status(Status(StatusCode.ERROR, f"{type(error).__qualname__}: {message}"))


def _context_of(traceparent: str) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[53:55], 16)),
    )


def _exporter_of(name: str) -> Any:
    if name == "console":
        import sys

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        # Standard output belongs to data.
        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
