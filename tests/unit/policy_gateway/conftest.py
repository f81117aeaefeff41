"""One gateway and one caller, for tests that need no more."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.nats_server import NatsServer
from tests.unit.policy_gateway.gateway_desk import Caller, Gateway, caller, gateway


@pytest.fixture
async def one(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(nats_server, tmp_path / "one") as made:
        yield made


@pytest.fixture
async def me(nats_server: NatsServer, one: Gateway) -> AsyncIterator[Caller]:
    async with caller(nats_server) as made:
        yield made
