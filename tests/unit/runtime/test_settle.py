"""What a connection subscribed to, and then settled, is heard whoever says it."""

from collections.abc import AsyncIterator

import nats
import pytest
from nats.aio.client import Client

from services.runtime.nats_client import settle
from tests.support.eventually import eventually
from tests.support.listening import listen
from tests.support.nats_server import NatsServer

ROUNDS = 100
"""With a single round trip about one in twenty is lost."""


@pytest.fixture
async def clients(nats_server: NatsServer) -> AsyncIterator[list[Client]]:
    clients = [await nats.connect(nats_server.url) for _ in range(2)]
    yield clients
    for client in clients:
        await client.close()


async def test_what_another_connection_says_next_is_heard(clients: list[Client]) -> None:
    hearing, speaking = clients
    heard: list[str] = []
    for number in range(ROUNDS):
        await listen(hearing, f"s.{number}", lambda message: heard.append(message.subject))
        await speaking.publish(f"s.{number}", b"")
        await settle(speaking)
    assert await eventually(lambda: len(heard) >= ROUNDS)
