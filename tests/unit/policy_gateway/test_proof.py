"""No program before the proof, and none without it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Rejected
from services.policy_gateway.proof import Proof, Proven
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.sandbox.selftest import Finding
from services.policy_gateway.tools.tool import Ticket, Workspace
from services.runtime.logs import configure


class Prover:
    """Says what the test wants it to find."""

    def __init__(self, *findings: Finding) -> None:
        self.findings: list[Finding] = list(findings)
        self.tries = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self, _: Sandbox) -> list[Finding]:
        self.tries += 1
        await self.hold.wait()
        return self.findings


class Program:
    def __init__(self) -> None:
        self.runs = 0

    async def run(self, _plan: Any, _ticket: Ticket) -> dict[str, Any]:
        self.runs += 1
        return {"exit": 0}


def ticket(root: Path, within_s: float = 5.0) -> Ticket:
    return Ticket("c", "coder", Workspace("w", root, root, "seed"), asyncio.get_running_loop().time() + within_s)


async def test_programs_wait_for_one_proof(tmp_path: Path) -> None:
    prover, program = Prover(Finding("files", True, "")), Program()
    prover.hold.clear()
    tool = Proven(program, Proof(Sandbox(tmp_path), configure("test"), prover))
    many = [asyncio.create_task(tool.run(None, ticket(tmp_path))) for _ in range(3)]
    with pytest.raises(Rejected, match="timeout"):
        await tool.run(None, ticket(tmp_path, 0.01))
    assert program.runs == 0
    prover.hold.set()
    await asyncio.gather(*many)
    assert (program.runs, prover.tries) == (3, 1)


async def test_what_is_not_proven_is_not_run(tmp_path: Path) -> None:
    prover, program = Prover(Finding("files", True, ""), Finding("network", False, "/secret/path")), Program()
    tool = Proven(program, Proof(Sandbox(tmp_path), configure("test"), prover))
    for _ in range(2):
        with pytest.raises(Rejected) as refused:
            await tool.run(None, ticket(tmp_path))
        assert (refused.value.code, refused.value.detail) == ("sandbox_unavailable", {"broken": ["network"]})
    assert (program.runs, prover.tries) == (0, 1), "it is not tried at every call"
