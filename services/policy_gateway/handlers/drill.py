"""The verb policy.drill: the attacks, run through the same calls as everybody's, and so in the audit too."""

import asyncio
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from contracts.drill import DrillReport, DrillRequest
from contracts.errors import Rejected
from contracts.policy import ToolCall
from services.policy_gateway.calls.call import Call
from services.policy_gateway.calls.calls import Calls
from services.policy_gateway.drill.attempts import ATTACKS
from services.policy_gateway.drill.drill import AttemptCall, Drill
from services.runtime.clock import Clock
from services.runtime.ids import Ids
from services.runtime.rpc import Caller

PORT_DEFAULT: Final = 4222


class DrillHandlers:
    """Runs one drill at a time. `workspaces` is where the throw-away workspace is made."""

    def __init__(self, *, calls: Calls, workspaces: Path, nats_url: str, clock: Clock, ids: Ids) -> None:
        self._calls, self._workspaces, self._clock, self._ids = calls, workspaces, clock, ids
        self._broker_port = urlsplit(nats_url.split(",", maxsplit=1)[0]).port or PORT_DEFAULT
        self._running = asyncio.Lock()

    async def drill(self, request: DrillRequest, caller: Caller) -> DrillReport:
        """Run the attacks. Raises Rejected: bad_request for one that is not there, conflict while a drill runs."""
        known = {attack.number for attack in ATTACKS}
        unknown = [number for number in request.attacks if number not in known]
        if unknown:
            raise Rejected("bad_request", "there is no such attack", field="attacks", known=sorted(known))
        if self._running.locked():
            raise Rejected("conflict", "a drill is running")

        async def call(attempt: AttemptCall) -> dict[str, Any]:
            asked = ToolCall(attempt.args, attempt.opts, None, attempt.workspace)
            now_s, call_id = asyncio.get_running_loop().time(), self._ids.new()
            answer = await self._calls.handle(
                Call(call_id, attempt.role, attempt.tool, asked, f"drill:{caller.by}", caller.corr, now_s)
            )
            if answer is None:
                raise Rejected("internal", "a call of the drill was asked for twice")
            reply: dict[str, Any] = msgspec.json.decode(answer.encoded())
            return reply

        async with self._running:
            drill = Drill(call, self._workspaces, self._broker_port, self._clock.monotonic_s)
            return await drill.run(request.attacks)
