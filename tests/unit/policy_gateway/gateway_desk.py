"""A gateway in this process, on a real broker, with tools that the test holds in its hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from contracts.codec import CommitCodec
from contracts.commit import HEADER_TYPES, Commit
from contracts.errors import Rejected
from contracts.policy import AuditEvent, CallOf, ToolCall
from contracts.run import RunCreated, RunEvent, TasksAdded, TaskStarted
from contracts.run_tools import ToolRequested
from contracts.streams import EVENTS_EXECUTOR, EVENTS_POLICY_GATEWAY
from contracts.subjects import ID, rpc, tool_call
from contracts.subjects import events as event_subject
from contracts.task import TaskSpec
from services.policy_gateway.audit.log import AUDIT_CODEC, AUDIT_SUBJECT
from services.policy_gateway.config import Config as PolicyConfig
from services.policy_gateway.decision.plans import FetchPlan, LuaPlan, ReadPlan, ShellPlan, WritePlan
from services.policy_gateway.hands import Hands
from services.policy_gateway.service import SERVICE, assemble
from services.policy_gateway.toolkit import Toolkit
from services.policy_gateway.tools.tool import Ticket, Workspace
from services.runtime.app import App
from services.runtime.bus import Bus
from services.runtime.config import Config
from services.runtime.lifecycle import Phase
from tests.support.eventually import eventually
from tests.support.linked import linked
from tests.support.nats_server import NatsServer

FAR_MS = 4_000_000_000_000
"""A deadline that no test lives to see."""
RUN_CODEC: CommitCodec[RunEvent] = CommitCodec(RunEvent)
VANISHED = "vanished"
READ = {"read": "/code/a.ex"}
"""The arguments of a call that every coder may make."""
CALL = CallOf("r1", "a", 1, 1)
"""Whose call it is after `Caller.task_runs`."""


class HeldTool:
    """Answers at once, or when the test says so; counts how often it was really called, and cut."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.value: Any = {"content": "hello", "size": 5}
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.cut = 0

    async def run(self, plan: Any, ticket: Ticket) -> dict[str, Any]:
        self.calls.append(plan)
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cut += 1
                raise
        if self.error is not None:
            raise self.error
        return self.value


class OneWorkspace:
    """Every name is the same folder, but one."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, name: str | None) -> Workspace:
        if name == VANISHED:
            raise Rejected("workspace_not_found", workspace=name)
        return Workspace(name or "default", self._root, self._root, "seed")


class Gateway:
    """One gateway: its app, and the tool behind all its plans."""

    def __init__(
        self, server: NatsServer, home: Path, *, drain_s: float = 20.0, keys: Path | None = None, **policy: Any
    ) -> None:
        self.tool = HeldTool()
        self.home = home
        flags = {"core.home": str(home), "core.nats_url": server.url, "core.http_port": "0",
                 "core.drain_s": drain_s}  # fmt: skip
        if keys is not None:
            flags["core.nats_nkey_file"] = str(keys)
        self.app = App(SERVICE, Config.load(flags, env={}))
        self._policy = PolicyConfig(**policy)
        self._task: asyncio.Task[int] | None = None

    async def start(self) -> None:
        async def build(app: App) -> None:
            plans = (ReadPlan, WritePlan, ShellPlan, LuaPlan, FetchPlan)
            toolkit = Toolkit(dict.fromkeys(plans, self.tool), light=8, heavy=2)
            await assemble(app, self._policy, Hands(toolkit, OneWorkspace(self.home), "box1"))

        self._task = asyncio.create_task(self.app.serve(build))

        def up() -> bool:
            assert self._task is not None
            if self._task.done():
                raise RuntimeError(f"the gateway ended: {self._task}")
            return self.app.life.phase is Phase.READY

        await eventually(up, timeout_s=20)

    async def stop(self) -> int:
        self.app.life.stop("test")
        assert self._task is not None
        return await self._task


@asynccontextmanager
async def gateway(server: NatsServer, home: Path, **policy: Any) -> AsyncIterator[Gateway]:
    made = Gateway(server, home, **policy)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Caller:
    """Somebody who calls tools and asks verbs with nothing but NATS."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def raw(self, role: str, tool: str, body: bytes, **headers: str) -> dict[str, Any]:
        message = await self.bus.request(tool_call(role, tool), body, timeout_s=20, headers=headers or None)
        return msgspec.json.decode(message.data)

    async def call(
        self, role: str, tool: str, args: Any, *, task: CallOf | None = None, opts: Any = None, by: str = "",
        logged: bool = True,
    ) -> dict[str, Any]:  # fmt: skip
        """Call a tool. A call of a task stands in the log of its run first, as the executor does it."""
        asked = ToolCall(args, {} if opts is None else opts, task)
        if task is not None and logged:
            await self.asks_for(tool, asked, task)
        body = msgspec.json.encode(asked)
        return await self.raw(role, tool, body, **({"Htdag-By": by} if by else {}))

    async def ask(self, verb: str, **body: Any) -> Any:
        return await self.bus.call(rpc(SERVICE, "policy", verb), body, timeout_s=20)

    async def audit(self) -> list[AuditEvent]:
        records = [record async for record in self.bus.history(EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT)]
        return [entry for record in records for entry in AUDIT_CODEC.decode(record.data).events]

    async def run_is(self, run_id: str, *events: RunEvent) -> None:
        """Write what an executor would."""
        subject = event_subject("executor", "run", run_id)
        number = len([record async for record in self.bus.history(EVENTS_EXECUTOR, subject)])
        await self._store(run_id, f"{run_id}-{number}", *events)

    async def asks_for(self, tool: str, asked: ToolCall, task: CallOf) -> None:
        """Write the request of a call into the log of its run, if there is such a run."""
        if not ID.match(task.run_id) or not await self._has(task.run_id):
            return
        event = ToolRequested(
            task.task_id, task.attempt, "body", task.call, tool, asked.args, FAR_MS, asked.opts, barred=asked.barred
        )
        await self._store(task.run_id, uuid4().hex, event)

    async def _has(self, run_id: str) -> bool:
        return bool(await self.bus.newest(EVENTS_EXECUTOR, event_subject("executor", "run", run_id)))

    async def _store(self, run_id: str, msg_id: str, *events: RunEvent) -> None:
        commit = Commit(at="2026-01-01T00:00:00.000Z", by="executor", cause="c", corr=run_id, events=list(events))
        subject = event_subject("executor", "run", run_id)
        headers = {HEADER_TYPES: RUN_CODEC.types_header(list(events))}
        await self.bus.store(subject, RUN_CODEC.encode(commit), stream=EVENTS_EXECUTOR, msg_id=msg_id, headers=headers)

    async def task_runs(self, run_id: str = "r1", task_id: str = "a", role: str = "coder", attempt: int = 1) -> None:
        await self.run_is(
            run_id,
            RunCreated(run_id=run_id, deadline_at_ms=FAR_MS),
            TasksAdded([TaskSpec(id=task_id, role=role)]),
            TaskStarted(task_id, attempt, FAR_MS),
        )


@asynccontextmanager
async def caller(server: NatsServer) -> AsyncIterator[Caller]:
    async with linked(server.url) as bus:
        yield Caller(bus)
