"""A stream that somebody made over our subjects is named by the doctor; one over subjects of others is not."""

import pytest

from contracts.streams import EVENTS_IDENTITY
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
    assert found.message == f"not of htdag: CAPT keeps {subject}"
    await bus.close()


async def test_a_mirror_that_answers_in_the_place_of_ours_is_named(nats_server: NatsServer) -> None:
    """It may have forgotten what was. The broker has a mirror of ours answer without being told to."""
    bus = Bus(await nats_client.connect(nats_server.url, name="test"))
    await bus.start()
    await provision.apply(bus)
    await bus.api("STREAM.CREATE.MIRR", {"name": "MIRR", "mirror": {"name": EVENTS_IDENTITY}, "max_msgs": 1})
    found = await strangers(Console(bus, 5.0))
    assert (found.status, found.message) == ("fail", f"not of htdag: MIRR answers for {EVENTS_IDENTITY}")
    await bus.close()
