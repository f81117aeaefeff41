"""Ctrl-C and a reader who is gone end a command, also when its first cancellation is swallowed."""

import asyncio
import os
import signal
import sys

import pytest

from services.console import interruption
from services.console.interruption import ends_when_told
from services.runtime.event_loop import factory


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


async def wait_for_ever() -> None:
    with ends_when_told():
        asyncio.get_running_loop().call_soon(press)
        await asyncio.Event().wait()


async def swallow_once() -> None:
    with ends_when_told():
        asyncio.get_running_loop().call_soon(press)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()


@pytest.mark.parametrize("command", [wait_for_ever, swallow_once])
def test_ctrl_c_unwinds_as_keyboard_interrupt(command, monkeypatch):
    monkeypatch.setattr(interruption, "AGAIN_S", 0.02)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(command())


async def test_a_cancellation_of_somebody_else_stays_one():
    async def cancelled() -> None:
        with ends_when_told():
            await asyncio.Event().wait()

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_handler_from_before_is_back_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with ends_when_told():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, factory()])
def test_a_pipe_that_nobody_reads_any_more_ends_it_at_once(loops, monkeypatch):
    reading, writing = os.pipe()

    async def watch() -> None:
        with ends_when_told():
            asyncio.get_running_loop().call_soon(os.close, reading)
            await asyncio.Event().wait()

    with os.fdopen(writing, "w") as out, asyncio.Runner(loop_factory=loops) as runner:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(BrokenPipeError):
            runner.run(watch())


async def test_a_pipe_that_is_read_disturbs_nobody(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as out, os.fdopen(reading) as read:
        monkeypatch.setattr(sys, "stdout", out)
        with ends_when_told():
            out.write("a line\n")
            out.flush()
            assert await asyncio.to_thread(read.readline) == "a line\n"
