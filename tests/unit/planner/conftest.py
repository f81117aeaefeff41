"""A planner in a process of its own, on a real broker, and a desk to ask it from."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.linked import linked
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess
from tests.unit.planner.desk import Desk


@pytest.fixture
async def planner(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    service = ServiceProcess("planner", nats_server, tmp_path / "home")
    service.start()
    await service.ready()
    yield service
    service.kill()


@pytest.fixture
async def desk(nats_server: NatsServer, planner: ServiceProcess) -> AsyncIterator[Desk]:
    async with linked(nats_server.url) as bus:
        yield Desk(bus)
