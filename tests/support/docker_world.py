"""A workspace, a Docker engine with a small image, and the tool between them."""

import asyncio
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import DockerPlan, Mount, Place
from services.policy_gateway.tools.docker import Docker
from services.policy_gateway.tools.tool import Ticket, Workspace
from tests.support.docker_engine import DockerEngine

BUSYBOX = "htdag/busybox:test"
CODE = Mount(Place("code", ()), "/work", True)
MEM = 64 << 20


class World:
    """A workspace, an engine with a small image, and the tool between them."""

    def __init__(self, engine: DockerEngine, folder: Path) -> None:
        self.engine = engine
        self.tool = Docker(engine.url)
        for name in ("code", "tmp"):
            (folder / "w" / name).mkdir(parents=True)
        self.workspace = Workspace("w", folder / "w/code", folder / "w/tmp", "seed")
        (self.workspace.code / "hello.txt").write_text("hello")

    def ticket(self, timeout_s: float = 30.0) -> Ticket:
        return Ticket("call-1", "tester", self.workspace, asyncio.get_running_loop().time() + timeout_s)

    async def run(self, *cmd: str, timeout_s: float = 30.0, **plan: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "image": BUSYBOX,
            "working_dir": "/work",
            "mounts": (CODE,),
            "cpus": 2.0,
            "mem_bytes": MEM,
        } | plan
        return await self.tool.run(DockerPlan(cmd=cmd, **fields), self.ticket(timeout_s))

    async def sh(self, script: str, **plan: Any) -> dict[str, Any]:
        return await self.run("sh", "-c", script, **plan)

    async def refused(self, *cmd: str, **plan: Any) -> Rejected:
        with pytest.raises(Rejected) as caught:
            await self.run(*cmd, **plan)
        assert str(self.workspace.code) not in str(caught.value.to_wire())
        return caught.value

    async def containers(self) -> list[str]:
        async with aiodocker.Docker(self.engine.url) as client:
            return [container.id for container in await client.containers.list(all=True)]
