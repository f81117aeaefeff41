"""Ctrl-C ends a command, also when its first cancellation is swallowed."""

import asyncio
import os
import signal

import pytest

from services.console import interruption
from services.console.interruption import ctrl_c_ends_it


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


async def wait_for_ever() -> None:
    with ctrl_c_ends_it():
        asyncio.get_running_loop().call_soon(press)
        await asyncio.Event().wait()


async def swallow_once() -> None:
    with ctrl_c_ends_it():
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
        with ctrl_c_ends_it():
            await asyncio.Event().wait()

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_handler_from_before_is_back_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with ctrl_c_ends_it():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
