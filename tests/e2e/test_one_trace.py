"""One trace runs from whoever submits something to every call of a model that follows: real services, real OTLP."""

import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from contracts import streams
from contracts.subjects import events, rpc
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.linked import linked
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.timeout(120)
SERVICES = ("planner", "executor", "llm-worker")
TRACE_ID = "ae" * 16
HEADERS = {"traceparent": f"00-{TRACE_ID}-{'cd' * 8}-01"}


class Collector:
    """Takes spans in by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        collector = self

        class Taking(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """The test says what matters."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def chats(self, run_id: str) -> list[Any]:
        """The spans of a run's calls."""
        return [span for span in self.spans if told(span).get("gen_ai.conversation.id") == run_id]


def told(span: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
async def bus(nats_server: NatsServer, tmp_path: Path, collector: Collector) -> AsyncIterator[Bus]:
    """A caller of three traced services."""
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    running = [ServiceProcess(name, nats_server, tmp_path / name, **traced) for name in SERVICES]
    for process in running:
        process.start()
    for process in running:
        await process.ready()
    async with linked(nats_server.url) as made:
        yield made
    for process in running:
        process.kill()


async def test_every_call_of_a_run_is_in_the_trace_of_whoever_started_it(bus: Bus, collector: Collector) -> None:
    node = {"type": "llm", "model": "mock", "prompt": "Say it"}
    # The second is asked for after the answer of the first; a body of our own between them has no trace of its own.
    tasks = [{"id": "first", "node": node},
             {"id": "between", "depends_on": ["first"], "node": {"type": "lua", "src": "return 1"}},
             {"id": "second", "depends_on": ["between"], "node": node}]  # fmt: skip
    await bus.call(rpc("executor", "run", "start"), {"run_id": "r1", "tasks": tasks}, headers=HEADERS)
    chats = await eventually(lambda: found if len(found := collector.chats("r1")) == 2 else None, timeout_s=30)
    assert {span.trace_id.hex() for span in chats} == {TRACE_ID}
    assert all(span.parent_span_id for span in chats)
    subject = events("executor", "run", "r1")
    commits = [record.headers.get("traceparent", "") async for record in bus.history(streams.EVENTS_EXECUTOR, subject)]
    assert {trace[3:35] for trace in commits} == {TRACE_ID}


@pytest.mark.parametrize("headers", [HEADERS, None])
async def test_every_call_for_a_goal_is_in_the_trace_of_its_submission(
    bus: Bus, collector: Collector, headers: dict[str, str] | None
) -> None:
    goal = {"goal": "Build a small parser", "run_id": "g1", "options": {"model": "mock"}}
    await bus.call(rpc("planner", "goal", "submit"), goal, headers=headers)
    chats = await eventually(lambda: found if len(found := collector.chats("g1")) >= 4 else None, timeout_s=30)
    [submitted] = await eventually(
        lambda: [span for span in collector.spans if span.name.endswith(rpc("planner", "goal", "submit"))]
    )
    assert {span.trace_id for span in (*chats, submitted)} == {submitted.trace_id}
    assert headers is None or submitted.trace_id.hex() == TRACE_ID
