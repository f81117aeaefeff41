"""A Lua process holds its own two pipes and nothing of the service that started it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.policy_gateway.sandbox.processes import tree
from services.runtime import event_loop
from services.runtime.lua.host import LuaHost


def held(pid: int) -> dict[int, str]:
    return {int(entry.name): os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}


async def look(*, boxed: bool) -> None:
    stray = os.memfd_create("stray", 0)  # as a shell or a supervisor may have left one open
    os.set_inheritable(stray, True)
    host = LuaHost(children=2, allow_bubblewrap=boxed)
    await host.start()
    try:
        for pid in host.pids:
            processes = tree(pid)
            everything = [target for process in processes for target in held(process).values()]
            assert not [target for target in everything if "stray" in target or target.startswith("socket:")]
            # The last one is Lua itself, which keeps its pipe as 3.
            assert set(held(processes[-1])) == {0, 1, 2, 3}
    finally:
        await host.stop()
        os.close(stray)


@pytest.mark.parametrize("boxed", [True, False], ids=["boxed", "bare"])
@pytest.mark.parametrize("factory", [None, event_loop.factory()], ids=["standard", "ours"])
def test_nothing_of_the_service_comes_along(
    factory: Callable[[], asyncio.AbstractEventLoop] | None, boxed: bool
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(look(boxed=boxed))
