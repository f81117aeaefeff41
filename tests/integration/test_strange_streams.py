"""A stream that somebody made over our subjects is named by the doctor; one over subjects of others is not."""

import pytest

from services.console.connection import Console
from services.console.doctor.strangers import strangers
from services.runtime import nats_client, provision
from services.runtime.bus import Bus
from tests.support.nats_server import NatsServer


@pytest.mark.parametrize("subject", ["htdag.v1.identity.>", "_INBOX.>", "_INBOX_identity.>", "*.x", "llm.req.>"])
async def test_a_stream_that_hears_us_is_named(nats_server: NatsServer, subject: str) -> None:
    bus = Bus(await nats_client.connect(nats_server.url, name="test"))
    await bus.start()
    await provision.apply(bus)
    await bus.api("STREAM.CREATE.THEIRS", {"name": "THEIRS", "subjects": ["shop.a", "$KV.theirs.>"]})
    assert (await strangers(Console(bus, 5.0))).status == "ok"
    await bus.api("STREAM.CREATE.CAPT", {"name": "CAPT", "subjects": [subject, "else.y"], "no_ack": True})
    found = await strangers(Console(bus, 5.0))
    assert found.status == "fail"
    assert found.message == f"kept by streams that are not of htdag: CAPT ({subject})"
    await bus.close()
