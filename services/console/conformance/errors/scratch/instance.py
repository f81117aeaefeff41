"""A scratch instance: a whole one of its own, started to be maltreated and thrown away."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from contracts.commit import HEADER_BY
from contracts.subjects import rpc, tool_call
from services.console import principal
from services.console.conformance.errors.folder import thrown_away
from services.console.conformance.errors.scenario import until
from services.console.conformance.errors.scratch.engine import RefusingEngine
from services.console.conformance.errors.service_bus import bus_as
from services.console.connection import bus_at
from services.console.home import Home
from services.console.output import Output
from services.console.supervision import foreground
from services.console.supervision.fleet import Fleet
from services.console.supervision.plan import LIMITS_LIFTED, UpPlan
from services.runtime.bus import Bus

READY_S: Final = 60.0
ANSWER_S: Final = 20.0
FOREIGN: Final = "conformance-flood"
"""A model that the command itself serves, badly."""
HURRIED: Final = "conformance-hurried"
"""A model that may be asked once a minute."""
_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Quiet(Output):
    """Says nothing of what goes on in the scratch instance; what matters of it ends in a point."""

    def note(self, text: str) -> None:
        """Nothing."""


class PushedClock:
    """The time of day of its identity: it stands still until it is put forward."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.now_s = int(time.time())
        self._write()

    def forward(self, seconds: int) -> None:
        """Later."""
        self.now_s += seconds
        self._write()

    def _write(self) -> None:
        self.file.write_text(f"{self.now_s}\n", encoding="ascii")


class Scratch:
    """The instance, and what scenarios need of it. `bus` speaks as its operator."""

    def __init__(self, fleet: Fleet, bus: Bus, clock: PushedClock, engine: RefusingEngine) -> None:
        self.fleet, self.bus, self.clock, self.engine = fleet, bus, clock, engine
        self.home = fleet.home

    async def ask(self, verb: str, body: Any, *, by: str | None = None) -> Any:
        """One request verb like `executor.run.get`, once; its value as JSON. Raises RemoteRejected or Rejected."""
        service, noun, name = verb.split(".")
        headers = principal.headers() if by is None else {**principal.headers(), HEADER_BY: by}
        return await self.bus.call(rpc(service, noun, name), body, timeout_s=ANSWER_S, headers=headers)

    async def tool(self, role: str, tool: str, args: Any, **more: Any) -> Any:
        """The answer to one tool call: its error, or None."""
        body = msgspec.json.encode({"args": args, "opts": {}, **more})
        answer = await self.bus.request(tool_call(role, tool), body, timeout_s=ANSWER_S, headers=principal.headers())
        return _DECODE(answer.data).get("error")

    def workspace(self, name: str) -> Path:
        """The code of a workspace of this name, which is made."""
        code = self.home.root / "workspaces" / name / "code"
        code.mkdir(parents=True)
        return code

    async def run(self, run_id: str, tasks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Carry a run out to its end; its view."""
        await self.ask("executor.run.start", {"run_id": run_id, "tasks": tasks, **more})
        return await self.over(run_id)

    async def over(self, run_id: str) -> dict[str, Any]:
        """The view of a run, as soon as it is over."""

        async def look() -> dict[str, Any] | None:
            view: dict[str, Any] = await self.ask("executor.run.get", {"run_id": run_id})
            return None if view["status"] == "running" else view

        view: dict[str, Any] = await until(look)
        return view

    def as_user(self, user: str) -> AbstractAsyncContextManager[Bus]:
        """A bus that speaks as a service: what only somebody who took it over could do."""
        return bus_as(user, self.home.keys, f"nats://{self.fleet.url.rpartition('@')[2]}")


@asynccontextmanager
async def scratch_instance() -> AsyncIterator[Scratch]:
    """Start one in a folder that is removed, on free ports of loopback. It is ended at once, without a drain."""
    with thrown_away() as name:
        folder = Path(name)
        clock = PushedClock(folder / "clock")
        async with RefusingEngine(folder / "engine.sock").serving() as engine:
            home = Home(folder / "home")
            home.prepare()
            plan = UpPlan(
                port=0, model="mock", embedded=True, test_clock=clock.file, settings=_settings(folder, engine)
            )
            async with foreground.instance(home, plan, Quiet()) as fleet:
                try:
                    if not await foreground.wait_ready(fleet, READY_S):
                        raise foreground.not_ready(fleet)
                    async with bus_at(fleet.url) as bus:
                        yield Scratch(fleet, bus, clock, engine)
                finally:
                    fleet.kill()


def _settings(folder: Path, engine: RefusingEngine) -> dict[str, str]:
    """Bounds that are reached at once. The empty file stands in the place of all the user's own."""
    file = folder / "htdag.toml"
    file.write_text("", encoding="ascii")
    models = {
        FOREIGN: {"provider": "nats"},
        HURRIED: {"provider": "mock", "requests_per_minute": 1},
    }
    return {
        "HTDAG_CONFIG": str(file),
        "HTDAG_LLM_WORKER__LIMITS": LIMITS_LIFTED,
        "HTDAG_LLM_WORKER__MODELS": json.dumps(models),
        "HTDAG_POLICY__DOCKER_HOST": engine.url,
        "HTDAG_POLICY__WORKSPACE_FILES": "1000",
        "HTDAG_CORE__DRAIN_S": "1",
        "HTDAG_CORE__GRACE_S": "1",
        "HTDAG_CORE__LOG_LEVEL": "warning",
    }
