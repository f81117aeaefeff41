"""The stage of a benchmark: a throw-away instance with just the services that are measured, and a connection to it."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from services.console.bench.workloads import BODY_SUBJECT
from services.console.home import Home
from services.console.output import Output
from services.console.supervision.foreground import instance, not_ready, wait_ready
from services.console.supervision.plan import UpPlan

if TYPE_CHECKING:
    from services.console.supervision.fleet import Fleet
    from services.runtime.bus import Bus

BODY_START_S: Final = 20.0
_KB: Final = 1024


class Stage:
    """A running instance, a bus to it, and what it takes in memory."""

    def __init__(self, fleet: "Fleet", bus: "Bus", started_in_s: float) -> None:
        self.fleet, self.bus, self.started_in_s = fleet, bus, started_in_s

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of each process now, in MB."""
        found = {}
        for child in self.fleet.children:
            if child.process is not None:
                pages = Path(f"/proc/{child.process.pid}/statm").read_text(encoding="ascii").split()[1]
                found[child.spec.name] = round(int(pages) * os.sysconf("SC_PAGESIZE") / _KB / _KB, 1)
        return found


@asynccontextmanager
async def stage(services: Sequence[str], sync: Literal["always", "1s"]) -> AsyncIterator[Stage]:
    """Start an instance in a folder of its own, and leave nothing of it behind."""
    from services.runtime.bus import Bus
    from services.runtime.nats_client import connect

    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="htdag-bench-", ignore_cleanup_errors=True) as folder:
        began = loop.time()
        inherited = os.environ.pop("NATS_URL", None)
        try:
            async with instance(
                Home(Path(folder)), UpPlan(tuple(services), 0, sync, limits_lifted=True), Output(json=True)
            ) as fleet:
                if not await wait_ready(fleet):
                    raise not_ready(fleet)
                started_in_s = round(loop.time() - began, 2)
                bus = Bus(await connect(fleet.url, name="htdag-bench"), sync=sync)
                await bus.start()
                try:
                    yield Stage(fleet, bus, started_in_s)
                finally:
                    await bus.close()
        finally:
            if inherited is not None:
                os.environ["NATS_URL"] = inherited


@asynccontextmanager
async def remote_bodies(url: str, bus: "Bus") -> AsyncIterator[None]:
    """A second process that answers the bodies of tasks over NATS."""
    env = {**os.environ, "HTDAG_BENCH_URL": url, "PYTHONSAFEPATH": "1"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.console.bench.bodies", env=env)
    try:
        await _first_answer(bus)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _first_answer(bus: "Bus") -> None:
    """Wait until the other process answers; raises Rejected when it never does."""
    from contracts.errors import Rejected

    end = asyncio.get_running_loop().time() + BODY_START_S
    while True:
        try:
            await bus.request(BODY_SUBJECT, b"{}", timeout_s=0.5)
        except Rejected:
            if asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(0.05)
        else:
            return
