"""Runs that nobody holds and no timer will wake are told the time, once."""

import asyncio
from typing import Any

import pytest
import structlog

from contracts.commit import HEADER_SUMMARY
from contracts.subjects import events
from services.executor.sleepers import QUIET_MS, Sleepers
from services.runtime.clock import FixedClock, rfc3339
from services.runtime.memory import MemoryEventStore
from services.runtime.publisher import Stored


class Post:
    """Keeps what is stored; `armed` are the subjects of armed timers."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, str]] = []
        self.armed: dict[str, int] = {}

    def store(self, subject: str, data: bytes, *, stream: str, msg_id: str) -> "asyncio.Future[Stored]":
        self.stored.append((subject, msg_id))
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        future.set_result(Stored(1, False))
        return future

    async def subjects(self, stream: str, pattern: str) -> dict[str, int]:
        return self.armed


class Dormitory:
    """Sleepers over a log in memory."""

    def __init__(self) -> None:
        self.store, self.post, self.clock = MemoryEventStore(), Post(), FixedClock()
        self.held: set[str] = set()
        self.alone = True
        log: Any = structlog.get_logger()
        self.sleepers = Sleepers(
            self.store, self.post, self.clock, log, lambda run_id: run_id in self.held, lambda: self.alone
        )

    async def has(self, run_id: str, summary: str) -> int:
        data = b'{"at":"%s"}' % rfc3339(self.clock.now_ms()).encode()
        return await self.store.append(
            events("executor", "run", run_id), [data], expect=0, msg_id=run_id, headers={HEADER_SUMMARY: summary}
        )


@pytest.fixture
async def dormitory() -> Dormitory:
    return Dormitory()


async def test_only_what_goes_on_and_is_held_by_nobody_and_no_timer_is_woken(dormitory: Dormitory):
    seq = await dormitory.has("lost", '{"status":"running"}')
    for run_id, status in (("over", "completed"), ("held", "running"), ("timed", "running")):
        await dormitory.has(run_id, f'{{"status":"{status}"}}')
    dormitory.held.add("held")
    dormitory.post.armed["htdag.v1.timer.armed.executor.run.timed"] = 1
    assert await dormitory.sleepers.wake() == 1
    assert dormitory.post.stored == [("htdag.v1.cmd.executor.run.lost.time", f"wake:lost:{seq}")]


async def test_what_another_executor_may_work_on_is_left_alone_for_a_while(dormitory: Dormitory):
    dormitory.alone = False
    await dormitory.has("busy", '{"status":"running"}')
    dormitory.clock.advance(QUIET_MS - 1)
    assert await dormitory.sleepers.wake() == 0
    dormitory.clock.advance(1)
    assert await dormitory.sleepers.wake() == 1


@pytest.mark.parametrize(("data", "summary"), [(b"garbage", "{}"), (b"{}", "{}"), (b'{"at":"x"}', "{}"), (b"{}", "[")])
async def test_a_commit_that_cannot_be_read_keeps_nobody_else_asleep(dormitory: Dormitory, data: bytes, summary: str):
    dormitory.alone = False
    subject = events("executor", "run", "foreign")
    await dormitory.store.append(subject, [data], expect=0, msg_id="f", headers={HEADER_SUMMARY: summary})
    await dormitory.has("lost", "{}")
    dormitory.clock.advance(QUIET_MS)
    assert await dormitory.sleepers.wake() == 1


async def test_runs_on_many_pages_are_all_found(dormitory: Dormitory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.executor.sleepers.PAGE", 2)
    for number in range(5):
        await dormitory.has(f"r{number}", '{"status":"running"}')
    assert await dormitory.sleepers.wake() == 5
    assert len({msg_id for _, msg_id in dormitory.post.stored}) == 5
