"""A gateway is killed with SIGKILL at each of its points: one effect at most, one answer, and a complete audit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from contracts.policy import CallOf, ToolDecided, ToolFinished
from services.runtime import faults
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess
from tests.unit.policy_gateway.gateway_desk import Caller, caller

POINTS = [point for point in faults.POINTS if point.startswith("policy_gateway.")]
WRITE = {"write": "/code/once.txt", "content": "once"}
CALL = CallOf("r1", "a", 1, 1)


def processes(program: str, word: str) -> list[str]:
    """Processes of one program on this machine whose command line holds a word of their own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(program.encode()) and word.encode() in words:
                found.append(path.parent.name)
    return found


@pytest.fixture
async def gateway(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    service = ServiceProcess("policy-gateway", nats_server, tmp_path / "home")
    yield service
    if not service.dead:
        service.terminate()  # softly: nobody comes after it who would sweep


async def complete(me: Caller) -> bool:
    kinds = [type(entry) for entry in await me.audit() if isinstance(entry, ToolDecided | ToolFinished)]
    return kinds == [ToolDecided, ToolFinished]


@pytest.mark.law("I8")
@pytest.mark.parametrize("point", POINTS)
async def test_wherever_it_dies_nothing_happens_twice_and_the_audit_is_complete(
    gateway: ServiceProcess, nats_server: NatsServer, tmp_path: Path, point: str
) -> None:
    async with caller(nats_server) as me:
        gateway.start(fault=point)
        await gateway.ready()
        await me.task_runs()
        calling = asyncio.create_task(me.call("coder", "fs", WRITE, task=CALL))
        await eventually(lambda: gateway.dead, timeout_s=20)
        calling.cancel()
        written = tmp_path / "home" / "workspaces" / "default" / "code" / "once.txt"
        happened = point in ("policy_gateway.after_effect", "policy_gateway.after_record")
        assert written.exists() is happened
        written.unlink(missing_ok=True)
        gateway.start()
        await gateway.ready()
        said = await me.call("coder", "fs", WRITE, task=CALL)
        if point == "policy_gateway.after_record":
            assert said["value"]["bytes_written"] == 4
        else:
            assert said["error"]["code"] == "call_interrupted"
        assert await me.call("coder", "fs", WRITE, task=CALL) == said
        assert not written.exists()
        await eventually(lambda: complete(me), timeout_s=10)
        assert (await me.ask("verify"))["entries"] >= 2
        assert gateway.terminate() == 0


async def test_a_call_of_no_task_is_closed_when_the_next_gateway_starts(
    gateway: ServiceProcess, nats_server: NatsServer
) -> None:
    async with caller(nats_server) as me:
        gateway.start(fault="policy_gateway.after_decided")
        await gateway.ready()
        calling = asyncio.create_task(me.call("coder", "fs", WRITE, by="somebody"))
        await eventually(lambda: gateway.dead, timeout_s=20)
        calling.cancel()
        gateway.start()
        await gateway.ready()
        await eventually(lambda: complete(me), timeout_s=10)
        (row,) = await me.ask("audit", code="call_interrupted")
        assert (row["by"], row["verdict"], row["ended"] is not None) == ("somebody", "allow", True)


@pytest.mark.law("I14")
async def test_a_killed_gateway_leaves_no_process_behind(gateway: ServiceProcess, nats_server: NatsServer) -> None:
    seconds = "6173.4375"
    async with caller(nats_server) as me:
        gateway.start()
        await gateway.ready()
        calling = asyncio.create_task(me.call("admin", "shell", {"cmd": ["sleep", seconds]}))
        await eventually(lambda: processes("sleep", seconds), timeout_s=20)
        gateway.kill()
        calling.cancel()
        await eventually(lambda: not processes("sleep", seconds))
        gateway.start()
        await gateway.ready()
        await eventually(lambda: complete(me), timeout_s=15)
        (row,) = await me.ask("audit", code="call_interrupted")
        assert (row["role"], row["tool"]) == ("admin", "shell")
