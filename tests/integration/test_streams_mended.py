"""A broker that comes back without some of its streams gets them again, without a restart of any service."""

import asyncio
from pathlib import Path

from contracts import streams
from contracts.errors import Rejected
from services.runtime import nats_client
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess


async def test_streams_in_memory_are_made_again_after_the_broker_was_killed(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    worker = ServiceProcess("llm-worker", nats_server, tmp_path / "home")
    worker.start()
    try:
        await worker.ready()
        nats_server.kill()
        await asyncio.to_thread(nats_server.start)
        bus = Bus(await nats_client.connect(nats_server.url, name="test"))
        await bus.start()

        async def there() -> bool:
            try:
                await bus.api(f"STREAM.INFO.{streams.LLM_TOKENS}")
            except Rejected:
                return False
            return True

        await eventually(there, timeout_s=20)
        await bus.close()
    finally:
        worker.kill()
