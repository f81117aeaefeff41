"""Starting a broker anew that has stopped storing: only when a service says so, and only when there is room."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts.errors import Rejected
from services.console.home import Home, InstanceRecord, ServiceRecord
from services.console.processes import Process, identify
from services.console.supervision import mending
from services.console.supervision.child import Child, ChildSpec
from services.runtime.health import Check, HealthServer
from services.runtime.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.nats_server import answers, free_port, nats_server_binary


class Place:
    """A home with a supervised broker, and one service that says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.home.prepare()
        self.port = free_port()
        spec = ChildSpec(
            "nats",
            (nats_server_binary(), "-a", "127.0.0.1", "-p", str(self.port)),
            dict(os.environ),
            folder / "n.log",
        )
        self.broker = Child(spec, lambda: None)
        self.full_until: Process | None = None

    def checks(self) -> list[Check]:
        """What the service says on /readyz: it cannot store as long as the broker is the old one."""
        stuck = self.full_until is not None and self.broker.process == self.full_until
        return [Check("storage", not stuck, "the broker stores nothing in X" if stuck else None)]

    def record(self) -> InstanceRecord:
        """The instance as `ps` would read it."""
        me = identify(os.getpid())
        broker = ServiceRecord(self.broker.process or Process(0, 0))
        url = f"nats://127.0.0.1:{self.port}"
        return InstanceRecord(str(self.home.root), "background", me, url, broker, {"planner": ServiceRecord(me)})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    health = HealthServer(checks=place.checks, metrics=Metrics().render)
    http = await health.start("127.0.0.1", 0)
    entry = {"pid": os.getpid(), "http": http, "service": "planner", "started_at": "now"}
    (place.home.run / "planner-1.json").write_bytes(msgspec.json.encode(entry))
    living = asyncio.create_task(place.broker.run())
    await eventually(lambda: answers(place.port), timeout_s=20)
    yield place
    await place.broker.stop()
    await living
    await health.stop()


async def test_a_broker_that_stores_is_left_alone(place: Place) -> None:
    before = place.broker.process
    assert not await mending.mend_broker(place.home, place.record())
    assert place.broker.process == before


async def test_a_broker_that_stores_nothing_is_started_anew_and_the_services_stay(place: Place) -> None:
    before = place.full_until = place.broker.process
    assert await mending.mend_broker(place.home, place.record())
    assert place.broker.process != before
    assert answers(place.port)


async def test_while_the_disk_is_full_it_is_not_touched(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = place.full_until = place.broker.process
    monkeypatch.setattr(mending, "ROOM_BYTES_MIN", 1 << 60)
    with pytest.raises(Rejected) as refused:
        await mending.mend_broker(place.home, place.record())
    assert refused.value.code == "storage_full"
    assert place.broker.process == before


async def test_a_broker_of_somebody_else_is_theirs_to_mend(place: Place) -> None:
    place.full_until = place.broker.process
    record = msgspec.structs.replace(place.record(), broker=None)
    with pytest.raises(Rejected) as refused:
        await mending.mend_broker(place.home, record)
    assert refused.value.code == "storage_full"
