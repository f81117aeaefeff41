"""Start, ready, drain, stop: each step bounded, each ending told apart."""

import asyncio
import os
import signal
import threading
from typing import Any

import pytest

from contracts.errors import Rejected
from services.runtime.lifecycle import Lifecycle, Phase
from tests.support.eventually import eventually


class Lines:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.said.append((event, fields))

    warning = error = info

    def events(self) -> list[str]:
        return [event for event, _ in self.said]


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def abandoned():
    return []


@pytest.fixture
async def life(lines, abandoned):
    return Lifecycle(drain_s=5, grace_s=0.5, log=lines, abandon=abandoned.append)


async def nothing() -> None:
    return None


def noting(steps: list[str], what: str):
    async def hook() -> None:
        steps.append(what)

    return hook


async def running(life: Lifecycle, start=nothing) -> asyncio.Task[int]:
    task = asyncio.create_task(life.run(start))
    await eventually(lambda: life.phase is Phase.READY or task.done())
    return task


async def ended(task: asyncio.Task[int]) -> int:
    async with asyncio.timeout(10):
        return await task


async def test_a_soft_stop_drains_then_stops_last_registered_first(life, lines):
    steps: list[str] = []
    for name in ("one", "two"):
        life.on_drain(noting(steps, f"drain {name}"))
        life.on_stop(noting(steps, f"stop {name}"))
    task = await running(life)
    life.stop()
    life.stop()
    assert await ended(task) == 0
    assert steps == ["drain two", "drain one", "stop two", "stop one"]
    assert life.phase is Phase.STOPPED
    assert lines.events() == ["ready", "stop_asked", "stopped"]


async def test_stopping_before_the_start_starts_nothing(life):
    steps: list[str] = []
    life.stop()
    assert await ended(asyncio.create_task(life.run(noting(steps, "start")))) == 0
    assert (steps, life.phase) == ([], Phase.STOPPED)


async def test_stopping_while_starting_cuts_the_start_and_closes_what_was_opened(life):
    steps: list[str] = []

    async def start() -> None:
        life.on_stop(noting(steps, "closed"))
        steps.append("opened")
        await asyncio.Event().wait()

    task = asyncio.create_task(life.run(start))
    await eventually(lambda: steps == ["opened"])
    assert life.phase is Phase.STARTING
    life.stop()
    assert await ended(task) == 0
    assert steps == ["opened", "closed"]


async def test_a_crash_of_a_task_stops_the_process_with_1_and_still_closes(life, lines):
    steps: list[str] = []
    life.on_stop(noting(steps, "closed"))
    life.on_drain(noting(steps, "drained"))
    task = await running(life)

    async def crash() -> None:
        raise ValueError("boom")

    life.spawn(crash(), "loop")
    assert await ended(task) == 1
    assert steps == ["closed"]
    _, fields = next(line for line in lines.said if line[0] == "task_crashed")
    assert (fields["task"], str(fields["exc_info"])) == ("loop", "boom")


async def test_a_refused_start_ends_with_the_exit_code_of_its_error(life, lines):
    async def start() -> None:
        raise Rejected("port_in_use", port=1)

    assert await ended(asyncio.create_task(life.run(start))) == 78
    assert next(fields for event, fields in lines.said if event == "task_crashed")["code"] == "port_in_use"


async def test_a_task_that_ends_by_itself_is_no_crash(life):
    task = await running(life)
    await life.spawn(nothing(), "once")
    life.stop()
    assert await ended(task) == 0


async def test_a_task_that_its_owner_cancels_is_no_crash(life):
    task = await running(life)
    loop = life.spawn(asyncio.Event().wait(), "loop")
    await asyncio.sleep(0)
    loop.cancel()
    await asyncio.wait([loop])
    assert loop.cancelled()
    life.stop()
    assert await ended(task) == 0


async def test_a_task_that_dies_of_a_foreign_cancellation_is_a_crash(life, lines):
    task = await running(life)
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def loop() -> None:
        await future

    life.spawn(loop(), "loop")
    await asyncio.sleep(0)
    future.cancel()
    assert await ended(task) == 1
    assert "task_crashed" in lines.events()


async def test_what_is_cut_at_a_stop_is_not_a_failure(life, lines):
    task = await running(life)
    loop = life.spawn(asyncio.Event().wait(), "loop")
    life.stop()
    assert await ended(task) == 0
    assert loop.cancelled()
    assert "task_crashed" not in lines.events()


async def test_draining_is_bounded(lines, abandoned):
    life = Lifecycle(drain_s=0.05, grace_s=0.5, log=lines, abandon=abandoned.append)
    cut = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    life.on_drain(endless)
    task = await running(life)
    life.stop()
    assert await ended(task) == 0
    assert cut.is_set()
    assert "drain_cut" in lines.events()


async def test_a_hard_stop_skips_the_rest_of_the_drain(life):
    steps: list[str] = []
    life.on_stop(noting(steps, "closed"))
    draining = asyncio.Event()

    async def endless() -> None:
        draining.set()
        await asyncio.Event().wait()

    life.on_drain(endless)
    task = await running(life)
    life.stop()
    await draining.wait()
    assert life.phase is Phase.DRAINING
    life.kill("SIGTERM", 143)
    life.kill("again", 99)
    assert await ended(task) == 143
    assert steps == ["closed"]


async def test_a_broken_hook_does_not_keep_the_others_from_their_work(life, lines):
    steps: list[str] = []

    async def broken() -> None:
        raise OSError("disk")

    async def stray() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    for register in (life.on_drain, life.on_stop):
        register(noting(steps, register.__name__))
        register(broken)
    life.on_drain(stray)
    task = await running(life)
    life.stop()
    assert await ended(task) == 1
    assert steps == ["on_drain", "on_stop"]
    assert lines.events().count("drain_failed") == 2
    assert lines.events().count("stop_failed") == 1


async def test_a_hook_that_hangs_at_the_end_is_cut(lines, abandoned):
    life = Lifecycle(drain_s=1, grace_s=0.05, log=lines, abandon=abandoned.append)
    steps: list[str] = []
    life.on_stop(noting(steps, "closed"))
    life.on_stop(lambda: asyncio.Event().wait())  # type: ignore[arg-type,return-value]
    task = await running(life)
    life.stop()
    assert await ended(task) == 1
    assert steps == ["closed"]


async def test_a_task_that_refuses_to_end_is_abandoned(lines):
    given_up = threading.Event()
    codes: list[int] = []
    loop = asyncio.get_running_loop()
    release = asyncio.Event()

    def abandon(code: int) -> None:
        codes.append(code)
        given_up.set()
        loop.call_soon_threadsafe(release.set)

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    life = Lifecycle(drain_s=0.05, grace_s=0.05, log=lines, abandon=abandon)
    task = await running(life)
    life.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    life.stop()
    await ended(task)
    assert codes == [1]
    assert given_up.is_set()
    assert ("task_does_not_end", {"task": "stubborn"}) in lines.said


async def test_the_first_signal_is_soft_and_the_second_hard(life, lines):
    life.catch_signals()
    try:
        life.on_drain(lambda: asyncio.Event().wait())
        task = await running(life)
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: life.phase is Phase.DRAINING)
        os.kill(os.getpid(), signal.SIGINT)
        assert await ended(task) == 130
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert ("stop_asked", {"reason": "SIGTERM", "phase": "ready"}) in lines.said


async def test_a_life_is_lived_once(life):
    task = await running(life)
    with pytest.raises(RuntimeError, match="once"):
        await life.run(nothing)
    life.stop()
    assert await ended(task) == 0
    with pytest.raises(RuntimeError, match="needs a running life cycle"):
        life.spawn(nothing(), "late")
