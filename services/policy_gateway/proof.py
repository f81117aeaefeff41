"""No program is run before the sandbox has proven on this machine what it promises; and none while it cannot.

The proof is made once, at the start; what failed is tried again, because a busy machine can make a probe late.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from contracts.errors import Rejected
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.sandbox.selftest import Finding, selftest
from services.policy_gateway.tools.tool import Ticket, Tool
from services.runtime.lifecycle import Log

RETRY_S: Final = 30.0
Prove = Callable[[Sandbox], Awaitable[Sequence[Finding]]]


class Proof:
    """Whether every property of the sandbox holds here."""

    def __init__(self, sandbox: Sandbox, log: Log, prove: Prove = selftest) -> None:
        self._sandbox, self._log, self._prove = sandbox, log, prove
        self._trying: asyncio.Task[None] | None = None
        self._holds = False
        self._broken: list[str] = []
        self._tried_s = float("-inf")

    async def require(self) -> None:
        """Return when all properties hold. Raises Rejected("sandbox_unavailable") naming those that do not."""
        if self._holds:
            return
        now_s = asyncio.get_running_loop().time()
        if self._trying is None and now_s - self._tried_s >= RETRY_S:
            self._tried_s = now_s
            self._trying = asyncio.create_task(self._try(), name="prove-sandbox")
            self._trying.add_done_callback(self._tried)
        if self._trying is not None:
            # Who waits may be cancelled: the proof is for all.
            await asyncio.shield(self._trying)
        if not self._holds:
            raise Rejected("sandbox_unavailable", broken=self._broken)

    def _tried(self, _: "asyncio.Task[None]") -> None:
        self._trying = None

    async def _try(self) -> None:
        try:
            findings = await self._prove(self._sandbox)
        except (OSError, Rejected) as error:
            self._broken = ["selftest"]
            self._log.error("sandbox_not_proven", reason=str(error))
            return
        self._broken = [finding.name for finding in findings if not finding.ok]
        self._holds = not self._broken
        if self._holds:
            self._log.info("sandbox_proven", properties=[finding.name for finding in findings])
        for finding in findings:
            if not finding.ok:
                # For the operator: it may hold paths of the host, which no caller is told.
                self._log.error("sandbox_not_proven", property=finding.name, reason=finding.reason)


class Proven:
    """A tool that runs programs, behind the proof. The wait is part of the call's time."""

    def __init__(self, tool: Tool[Any], proof: Proof) -> None:
        self._tool, self._proof = tool, proof

    async def run(self, plan: Any, ticket: Ticket) -> dict[str, Any]:
        """See Tool.run. Raises Rejected("sandbox_unavailable")."""
        try:
            async with asyncio.timeout_at(ticket.deadline_s):
                await self._proof.require()
        except TimeoutError:
            raise Rejected("timeout", "the sandbox was still being proven") from None
        return await self._tool.run(plan, ticket)
