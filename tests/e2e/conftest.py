"""What tests of whole processes share: workers on a private broker, and a plain client of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess


@pytest.fixture
async def start(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[ServiceProcess]]]:
    """A function that starts one more llm-worker, armed with a `fault` or not, and waits until it is ready."""
    workers: list[ServiceProcess] = []

    async def begin(*, fault: str = "", **environment: str) -> ServiceProcess:
        worker = ServiceProcess("llm-worker", nats_server, tmp_path / f"home-{len(workers)}", **environment)
        workers.append(worker)
        worker.start(fault=fault)
        await worker.ready()
        return worker

    yield begin
    for worker in workers:
        worker.kill()


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A plain NATS client of the private broker."""
    async with await nats.connect(nats_server.url) as connected:
        yield connected
