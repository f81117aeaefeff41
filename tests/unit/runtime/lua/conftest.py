"""One pool per test module, in each of the two sandboxes."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.runtime.lua.host import LuaHost


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["best", "bare"])
async def lua(request: pytest.FixtureRequest) -> AsyncIterator[LuaHost]:
    """Two children, in the best sandbox of this machine and without bubblewrap."""
    host = LuaHost(children=2, allow_bubblewrap=request.param == "best")
    await host.start()
    yield host
    await host.stop()
