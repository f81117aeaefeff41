"""An identity on a real broker, with a clock of its own; and a key file alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.identity.key_file import KeyFile
from services.runtime import nats_client
from services.runtime.bus import Bus
from tests.support.nats_server import NatsServer
from tests.unit.identity.desk import Hall


@pytest.fixture
async def hall(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Hall]:
    made = Hall(nats_server, tmp_path)
    await made.start()
    made.bus = Bus(await nats_client.connect(nats_server.url, name="test"))
    await made.bus.start()
    yield made
    await made.bus.close()
    for process in made.processes:
        process.kill()


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    made = KeyFile(tmp_path / "keys" / "identity")
    made.create()
    return made
