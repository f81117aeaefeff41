"""The board of a run whose log holds what nobody can read."""

import pytest

from contracts.errors import Rejected
from contracts.streams import EVENTS_EXECUTOR
from contracts.subjects import events as event_subject
from services.console.connection import Console
from services.console.follow_run import load_board
from services.runtime import provision
from services.runtime.bus import Bus
from services.runtime.nats_client import connect
from tests.support.nats_server import NatsServer


async def test_an_unreadable_commit_is_a_refusal_that_says_where(nats_server: NatsServer):
    bus = Bus(await connect(nats_server.url, name="test"))
    await bus.start()
    await provision.apply(bus)
    await bus.store(event_subject("executor", "run", "r1"), b"?", stream=EVENTS_EXECUTOR, msg_id="m1")
    for run_id, code in (("r1", "poison"), ("r2", "run_not_found")):
        with pytest.raises(Rejected) as refused:
            await load_board(Console(bus, 5), run_id)
        assert refused.value.code == code
    await bus.close()
