"""A caller of the planner, who also reads what it wrote and writes what an executor would."""

from typing import Any

import msgspec
import pytest

from contracts.commit import Commit
from contracts.reply import RemoteRejected
from contracts.run import (
    AddTasks,
    RunEvent,
    StartRun,
)
from contracts.streams import COMMANDS, EVENTS_EXECUTOR, EVENTS_PLANNER
from contracts.subjects import events as event_subject
from contracts.subjects import rpc
from services.planner.task_board import RUN_CODEC
from services.runtime.bus import Bus

GOAL = "Build user authentication with JWT"
COUNTING = 'return {subtasks = {{id = "only", description = "v%d", estimated_complexity = 1}}, reasoning = "v%d"}'


class Desk:
    """A caller of the planner, who also reads what the planner wrote and writes what an executor would."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def ask(self, verb: str, **body: Any) -> Any:
        return await self.bus.call(rpc("planner", *verb.split(".")), body, timeout_s=15)

    async def refused(self, verb: str, **body: Any) -> dict[str, Any]:
        with pytest.raises(RemoteRejected) as error:
            await self.ask(verb, **body)
        return error.value.error

    async def commands(self) -> list[StartRun | AddTasks]:
        found = [record async for record in self.bus.history(COMMANDS, "htdag.v1.in.*.executor.run.*.*")]
        return [msgspec.json.decode(record.data, type=StartRun | AddTasks) for record in found]

    async def commits(self, kind: str, name: str) -> int:
        subject = event_subject("planner", kind, name)
        return len([record async for record in self.bus.history(EVENTS_PLANNER, subject)])

    async def run_events(self, run_id: str, /, *events: RunEvent, **summary: Any) -> None:
        data = RUN_CODEC.encode(Commit(at="", by="", cause="", corr="", events=list(events)))
        headers = {"Htdag-Summary": msgspec.json.encode(summary).decode()} if summary else {}
        subject = event_subject("executor", "run", run_id)
        number = len([record async for record in self.bus.history(EVENTS_EXECUTOR, subject)])
        await self.bus.store(subject, data, stream=EVENTS_EXECUTOR, msg_id=f"{run_id}-{number}", headers=headers)
