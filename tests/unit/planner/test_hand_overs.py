"""Hand-overs on a real broker that goes away: nothing lost, nothing twice, in order."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
import structlog

from contracts.epic import GoalPlanned, TasksEnqueued
from contracts.errors import Rejected
from contracts.streams import COMMANDS
from contracts.task import TaskSpec
from services.planner import hand_overs as module
from services.planner.epic.hand_over import HandOver, hand_over
from services.planner.hand_overs import HandOvers
from services.runtime.bus import Bus
from tests.support.nats_server import NatsServer


@pytest.fixture
async def hand_overs(bus: Bus) -> AsyncIterator[HandOvers]:
    made = HandOvers(bus, structlog.get_logger())
    yield made
    await made.stop()


def added(number: int, run_id: str = "epic-auth") -> HandOver:
    return hand_over("auth", TasksEnqueued(run_id=run_id, tasks=[TaskSpec(id=f"t{number}")]))


async def stored(bus: Bus) -> list[str]:
    return [record.headers["Nats-Msg-Id"] async for record in bus.history(COMMANDS, "htdag.v1.in.>")]


async def test_each_arrives_once_and_in_order_however_often_it_is_started(bus: Bus, hand_overs: HandOvers):
    done: list[int] = []
    for _ in range(2):
        for number in range(20):
            hand_overs.start("auth", added(number), lambda _, n=number: done.append(n))
        await hand_overs.wait("epic-auth")
        await hand_overs.drain()
    assert await stored(bus) == [f"add:epic-auth:t{number}" for number in range(20)]
    assert done == [*range(20), *range(20)]


async def test_a_broker_that_was_away_gets_everything_in_order_when_it_is_back(
    bus: Bus, hand_overs: HandOvers, nats_server: NatsServer
):
    nats_server.kill()
    for number in range(5):
        hand_overs.start("auth", added(number), lambda _: None)
    assert hand_overs.is_open(added(4))
    nats_server.start()
    async with asyncio.timeout(30):
        await hand_overs.drain()
    assert await stored(bus) == [f"add:epic-auth:t{number}" for number in range(5)]


async def test_who_waits_is_told_that_it_is_accepted_but_not_there_yet(
    bus: Bus, hand_overs: HandOvers, nats_server: NatsServer, monkeypatch
):
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    nats_server.kill()
    hand_overs.start("auth", added(1), lambda _: None)
    with pytest.raises(Rejected) as refused:
        await hand_overs.wait("epic-auth")
    assert refused.value.code == "nats_unavailable"
    await hand_overs.wait("another-run")


async def test_what_can_never_be_sent_does_not_let_what_follows_overtake_it(bus: Bus, hand_overs: HandOvers):
    whole = GoalPlanned(run_id="r1", goal="x" * (9 << 20), strategy=None, tasks=[TaskSpec(id="a")])
    hand_overs.start("auth", hand_over("auth", whole), lambda _: None)
    hand_overs.start("auth", added(1, "r1"), lambda _: None)
    hand_overs.start("auth", added(2, "r2"), lambda _: None)
    with pytest.raises(Rejected):
        await hand_overs.wait("r1")
    await hand_overs.drain()
    assert await stored(bus) == ["add:r2:t2"]


class FullBus:
    """A bus whose broker has no room until it is told to."""

    def __init__(self) -> None:
        self.full = True

    async def store(self, *_args: object, **_named: object) -> None:
        """Refuse, or store."""
        if self.full:
            raise Rejected("storage_full")


async def test_who_waits_is_told_at_once_that_the_disk_is_full_and_it_is_handed_over_when_there_is_room():
    bus = FullBus()
    full = HandOvers(cast(Bus, bus), structlog.get_logger())
    full.start("auth", added(1), lambda _: None)
    async with asyncio.timeout(module.WAIT_S / 2):
        with pytest.raises(Rejected) as refused:
            await full.wait("epic-auth")
    assert refused.value.code == "storage_full"
    bus.full = False
    await full.wait("epic-auth")
