"""A program gets the descriptors that are named, and no other, whichever event loop starts it."""

import asyncio
import os
from collections.abc import Callable

import pytest

from services.runtime import event_loop
from services.runtime.child import start

LIST = ("/bin/sh", "-c", "echo /proc/self/fd/*; exit 3")


async def started() -> tuple[int, set[int], int]:
    stray = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(stray, True)
    named, other = os.pipe()
    try:
        child = await start(LIST, inherited=(named,), limit=1 << 16)
        said = (await child.stdout.read()).split()
        code = await child.wait()
        assert await child.wait() == code
        child.close()
        await asyncio.sleep(0)
    finally:
        for descriptor in (stray, named, other):
            os.close(descriptor)
    return code, {int(path.rpartition(b"/")[2]) for path in said}, named


@pytest.mark.parametrize("factory", [None, event_loop.factory()], ids=["standard", "ours"])
def test_only_what_is_named_comes_along(factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        code, open_there, named = runner.run(started())
    assert code == 3
    # The shell itself opens the folder that it lists.
    assert {0, 1, 2, named} <= open_there
    assert len(open_there - {0, 1, 2, named}) <= 1


async def echoed(text: bytes) -> tuple[bytes, bytes, int | None, int]:
    child = await start(("/bin/sh", "-c", "echo lost >&2; exec cat"), limit=1 << 16, stdin=True, stderr=False)
    assert child.stdin is not None
    assert child.code is None
    child.stdin.write(text)
    await child.stdin.drain()
    child.stdin.close()
    said, errors, code = await child.stdout.read(), await child.stderr.read(), await child.wait()
    child.close()
    await asyncio.sleep(0)
    return said, errors, child.code, code


@pytest.mark.parametrize("factory", [None, event_loop.factory()], ids=["standard", "ours"])
def test_it_is_told_and_says(factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    text = b"x" * 300_000
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(echoed(text)) == (text, b"", 0, 0)
