"""Fixtures that every test may use."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from services.runtime import provision, telemetry
from services.runtime.bus import Bus
from services.runtime.clock import FixedClock
from services.runtime.ids import CountingIds
from tests.support import boxes
from tests.support import docker_engine as engines
from tests.support.docker_engine import DockerEngine
from tests.support.guarded import Guarded
from tests.support.linked import linked
from tests.support.nats_server import NatsServer

# Whatever the developer's shell is configured for: no test reaches a real broker, home or paid provider.
FOREIGN = ("HTDAG_", "NATS_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "OTEL_")
for name in [name for name in os.environ if name.startswith(FOREIGN) and name != "NATS_SERVER"]:
    del os.environ[name]
# The tests start some thousand processes of ours: each would compile all it imports, a third of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Whoever starts the tests in the background of a script has them ignore Ctrl-C, and everything that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: tests have a timeout of their own.
# Drawing takes as long as the machine is busy: that says nothing about the code.
settings.register_profile("htdag", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("htdag")
NEEDS_SERVER = "start_nats_server"
NEEDS_ENGINE = "docker_engine"
LONG = ("e2e", "faults", "integration", "identity", "attack", "planner", "infra")
WITHOUT_BOX = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts a broker or an engine, so that `scripts/check --fast` can leave it out.

    Tests in Docker are left out where no engine can be started, those that build boxes where the kernel has no
    namespaces for one, and `pytest_terminal_summary` says so.
    """
    left_out = {id(item) for item in items if _impossible(item)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    config.stash[WITHOUT_BOX] = sum(_builds_boxes(item) for item in items if id(item) in left_out)
    items[:] = [item for item in items if id(item) not in left_out]
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if NEEDS_SERVER in fixtures or NEEDS_ENGINE in fixtures or "e2e" in item.path.parts:
            item.add_marker(pytest.mark.server)
    if hasattr(config, "workerinput"):
        items.sort(key=_patience)


def _patience(item: pytest.Item) -> int:
    """Among several workers the folders with long tests come first, so that none of them ends alone."""
    return next((place for place, folder in enumerate(LONG) if folder in item.path.parts), len(LONG))


def _impossible(item: pytest.Item) -> bool:
    if NEEDS_ENGINE in getattr(item, "fixturenames", ()) and engines.missing():
        return True
    return _builds_boxes(item) and boxes.missing() is not None


def _builds_boxes(item: pytest.Item) -> bool:
    return item.get_closest_marker("box") is not None or "attack" in item.path.parts


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was left out."""
    why = engines.missing()
    if why:
        terminalreporter.write_line(f"left out: tests in Docker, because {why}")
    without = config.stash.get(WITHOUT_BOX, 0)
    if without:
        terminalreporter.write_line(
            f"left out: {without} tests that need what a box refuses, because {boxes.missing()}"
        )


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """A private Docker engine for all tests of this process."""
    engine = DockerEngine()
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()


@pytest.fixture
def start_nats_server(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """A function that starts one more private server; its keywords are those of `NatsServer`."""
    servers: list[NatsServer] = []

    def start(**options: Any) -> NatsServer:
        server = NatsServer(tmp_path / f"nats-{len(servers)}", **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def nats_server(start_nats_server: Callable[..., NatsServer]) -> NatsServer:
    """A private, running server with JetStream that fsyncs every message, as the embedded default does."""
    return start_nats_server()


@pytest.fixture
async def guarded(start_nats_server: Callable[..., NatsServer], tmp_path: Path) -> AsyncIterator[Guarded]:
    """A private, running server with htdag's users and their rights."""
    made = Guarded(start_nats_server, tmp_path / "keys")
    yield made
    await made.close()


@pytest.fixture
def clock() -> FixedClock:
    """A clock that moves only when the test moves it."""
    return FixedClock()


@pytest.fixture
def ids() -> CountingIds:
    """Ids that count: the same in every run of a test."""
    return CountingIds()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A connection to a server of its own that has htdag's streams."""
    async with linked(nats_server.url) as bus:
        await provision.apply(bus)
        yield bus


@pytest.fixture
async def spans() -> AsyncIterator[Callable[[], Any]]:
    """The finished spans of this test."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    assert telemetry.start("executor", "executor-1", exporter=exporter)
    yield exporter.get_finished_spans
    await telemetry.stop()
