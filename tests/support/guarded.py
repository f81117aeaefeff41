"""A broker with the users and rights of htdag, and connections as any of them."""

from collections.abc import Callable
from pathlib import Path

from nats.aio.client import Client

from contracts.permissions import USERS
from contracts.rights import OPERATOR, inbox
from services.console.supervision.users import users_conf
from services.runtime import nats_client, nkeys
from services.runtime.bus import Bus
from tests.support.nats_server import NatsServer

PASSWORD = "op"


class Guarded:
    """A broker with htdag's users, and a connection as any of them."""

    def __init__(self, start: Callable[..., NatsServer], folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        keys = {user.name: nkeys.keep(folder, user.name) for user in USERS if not user.password}
        users = users_conf(lambda user: f'"{PASSWORD}"' if user.password else keys[user.name].public)
        self.server, self._keys = start(extra=f"authorization {{\n{users}}}"), keys
        self.clients: list[Client] = []

    async def connect(self, name: str, said: list[str] | None = None) -> Client:
        """A client that logs in as one user; what it is told of errors is added to `said`."""
        person = name == OPERATOR
        client = await nats_client.connect(
            self.server.url,
            name=name,
            user=name if person else None,
            password=PASSWORD if person else None,
            key=self._keys.get(name),
            inbox=inbox(name),
            log=(said if said is not None else []).append,
        )
        self.clients.append(client)
        return client

    async def bus(self, name: str) -> Bus:
        """A bus of one user."""
        bus = Bus(await self.connect(name))
        await bus.start()
        return bus

    async def close(self) -> None:
        """Close what was opened."""
        for client in self.clients:
            await client.close()
