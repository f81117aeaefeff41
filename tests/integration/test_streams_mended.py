"""A broker that comes back without its streams gets them again, without a restart of any service."""

import asyncio
import shutil
from pathlib import Path

from contracts import streams
from contracts.errors import Rejected
from services.runtime import nats_client, provision
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess


async def connected(server: NatsServer) -> Bus:
    bus = Bus(await nats_client.connect(server.url, name="test"))
    await bus.start()
    return bus


async def test_a_broker_that_lost_its_store_gets_all_streams_again(nats_server: NatsServer, tmp_path: Path) -> None:
    worker = ServiceProcess("llm-worker", nats_server, tmp_path / "home")
    worker.start()
    try:
        await worker.ready()
        nats_server.kill()
        await asyncio.to_thread(shutil.rmtree, nats_server.store_dir)
        await asyncio.to_thread(nats_server.start)
        bus = await connected(nats_server)

        async def there() -> bool:
            try:
                for spec in streams.STREAMS:
                    await bus.api(f"STREAM.INFO.{spec.name}")
            except Rejected:
                return False
            return True

        await eventually(there, timeout_s=20)
        await bus.close()
    finally:
        worker.kill()


async def test_the_stream_of_tokens_is_there_again_when_the_broker_is(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    await provision.apply(bus)
    await bus.close()
    nats_server.kill()
    await asyncio.to_thread(nats_server.start)
    bus = await connected(nats_server)
    assert (await bus.api(f"STREAM.INFO.{streams.LLM_TOKENS}"))["config"]["republish"]
    await bus.close()


async def test_a_stream_that_an_older_version_kept_in_memory_moves_to_the_disk(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    spec = next(one for one in streams.STREAMS if one.name == streams.LLM_TOKENS)
    old = {key: value for key, value in spec.config.items() if key != "persist_mode"}
    await bus.api(f"STREAM.CREATE.{spec.name}", {"name": spec.name, **old, "storage": "memory"})
    changes = {change.name: change.action for change in await provision.apply(bus)}
    assert changes[spec.name] == "update"
    assert {change.action for change in await provision.apply(bus)} == {"same"}
    await bus.close()
