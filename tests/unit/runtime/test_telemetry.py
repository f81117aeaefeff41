"""Trace context is always carried; spans are recorded only when somebody wants them."""

import asyncio
import http.server
import subprocess
import sys
import threading

import pytest

from services.runtime import telemetry

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def outgoing() -> dict[str, str]:
    headers: dict[str, str] = {}
    telemetry.inject(headers)
    return headers


def test_without_an_exporter_the_incoming_context_travels_on():
    with telemetry.span("process x", headers={"traceparent": TRACEPARENT}) as span:
        assert span is None
        assert outgoing() == {"traceparent": TRACEPARENT}
        assert telemetry.ids() == (TRACE_ID, SPAN_ID)
        with telemetry.span("inner"):
            assert outgoing() == {"traceparent": TRACEPARENT}
    assert outgoing() == {}
    assert telemetry.ids() is None


async def test_context_belongs_to_its_task():
    async def work(span_id: str) -> dict[str, str]:
        with telemetry.span("x", headers={"traceparent": f"00-{TRACE_ID}-{span_id}-01"}):
            await asyncio.sleep(0)
            return outgoing()

    one, two = await asyncio.gather(work("1" * 16), work("2" * 16))
    assert one["traceparent"][36:52] == "1" * 16
    assert two["traceparent"][36:52] == "2" * 16


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        TRACEPARENT + "\nx",
        "01-" + TRACEPARENT[3:],
    ],
)
def test_a_malformed_context_is_dropped(bad):
    assert telemetry.extract({"traceparent": bad}) == ""


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_traces_are_opt_in(env, wanted):
    assert telemetry.wanted(env) is wanted


def test_opentelemetry_is_not_even_imported_unless_asked_for():
    program = (
        "import sys\nfrom services.runtime import app, telemetry\nassert not telemetry.start('planner', 'p1')\n"
        "with telemetry.span('x'): pass\nprint([m for m in sys.modules if m.split('.')[0] == 'opentelemetry'])"
    )
    ran = subprocess.run([sys.executable, "-c", program], env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def published() -> str:
    with telemetry.span("publish llm.resp.{run}", kind="producer"):
        return outgoing()["traceparent"]


async def test_a_recorded_span_continues_the_trace_and_is_the_parent_of_what_is_sent(spans):
    with telemetry.span(
        "process llm.req.{model}",
        kind="consumer",
        headers={"traceparent": TRACEPARENT},
        attributes={"messaging.system": "nats"},
    ):
        sent = published()
    publish, process = spans()
    assert (process.name, process.kind.name, process.attributes["messaging.system"]) == (
        "process llm.req.{model}", "CONSUMER", "nats",
    )  # fmt: skip
    assert f"{process.context.trace_id:032x}" == TRACE_ID
    assert f"{process.parent.span_id:016x}" == SPAN_ID
    assert publish.parent.span_id == process.context.span_id
    assert sent == f"00-{TRACE_ID}-{publish.context.span_id:016x}-01"
    assert process.resource.attributes["service.instance.id"] == "executor-1"


async def test_an_exception_marks_the_span_and_goes_on(spans):
    with pytest.raises(ValueError, match="boom"), telemetry.span("x"):
        raise ValueError("boom")
    (span,) = spans()
    assert span.status.status_code.name == "ERROR"
    assert outgoing() == {}


async def test_a_replay_links_to_what_it_replays_and_does_not_continue_it(spans):
    with telemetry.span("replay run", links=(TRACEPARENT, "malformed")):
        pass
    (span,) = spans()
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE_ID]
    assert f"{span.context.trace_id:032x}" != TRACE_ID


@pytest.fixture
def collector():
    """A collector on loopback: `paths` is what was posted to it."""
    paths: list[str] = []

    class Take(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


async def test_spans_go_out_by_otlp_at_the_latest_when_stopping(collector, monkeypatch):
    url, paths = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    assert telemetry.start("executor", "executor-1")
    with telemetry.span("x"):
        pass
    await telemetry.stop()
    assert paths == ["/v1/traces"]


async def test_a_dead_collector_does_not_hold_up_the_stop(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(telemetry, "SHUTDOWN_S", 0.1)
    assert telemetry.start("executor", "executor-1")
    with telemetry.span("x"):
        pass
    async with asyncio.timeout(5):
        await telemetry.stop()
    assert "spans_lost" in caplog.text


async def test_an_error_and_an_attribute_are_told_without_their_secrets(spans):
    with pytest.raises(ValueError, match="geheim"), telemetry.span("x", attributes={"url": "https://a:geheim@x/"}):
        raise ValueError("no access with --token=geheim or https://a:geheim@x/")
    (span,) = spans()
    assert span.status.status_code.name == "ERROR"
    assert [event.name for event in span.events] == ["exception"]
    assert "geheim" not in span.to_json()
