"""An identity on a real broker, with a clock of its own; and a key file alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.identity.key_file import KeyFile
from tests.support.linked import linked
from tests.support.nats_server import NatsServer
from tests.unit.identity.desk import Hall


@pytest.fixture
async def hall(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Hall]:
    made = Hall(nats_server, tmp_path)
    await made.start()
    async with linked(nats_server.url) as made.bus:
        yield made
    for process in made.processes:
        process.kill()


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    made = KeyFile(tmp_path / "keys" / "identity")
    made.create()
    return made
