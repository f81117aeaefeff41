"""Runs the attacks one after the other and reports what was refused, what was contained and what did harm."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from contracts.drill import DrillAttack, DrillAttempt, DrillReport
from services.policy_gateway.drill.attempts import ATTACKS, Attempt
from services.policy_gateway.drill.stage import Stage
from services.policy_gateway.drill.traps import Traps

PROBE_EVERY_S: Final = 0.1
PROBE_MS_MAX: Final = 1_000.0
"""How long another call may take while the attacks go on."""
_REFUSALS: Final = "policy_violation"


class AttemptCall(NamedTuple):
    """One tool call of the drill; the reply has the shape of the envelope."""

    role: str
    tool: str
    args: Any
    opts: dict[str, Any]
    workspace: str


Call = Callable[[AttemptCall], Awaitable[dict[str, Any]]]


class Drill:
    """`call` carries one tool call out as the gateway does for anybody; `now_s` is a monotonic clock."""

    def __init__(self, call: Call, workspaces: Path, broker_port: int, now_s: Callable[[], float]) -> None:
        self._call, self._root, self._broker_port, self._now_s = call, workspaces, broker_port, now_s
        self._slowest_s = 0.0

    async def run(self, numbers: Iterable[int] = ()) -> DrillReport:
        """Run all attacks, or those of `numbers`. Nothing is left behind, whatever happens."""
        wanted = set(numbers)
        stage = Stage(self._root)
        attacks = []
        try:
            await stage.build()
            async with Traps(self._broker_port) as traps:
                probe = asyncio.get_running_loop().create_task(self._probe(stage.name), name="drill-probe")
                try:
                    for attack in ATTACKS:
                        if not wanted or attack.number in wanted:
                            attempts = [
                                await self._attempt(f"{attack.number}.{index}", attempt, stage, traps)
                                for index, attempt in enumerate(attack.attempts, 1)
                            ]
                            blocked = sum(attempt.outcome != "harm" for attempt in attempts)
                            attacks.append(DrillAttack(attack.number, attack.name, blocked, len(attempts), attempts))
                finally:
                    probe.cancel()
                    await asyncio.wait([probe])
        finally:
            left = await stage.remove()
        probe_ms = round(self._slowest_s * 1000, 1)
        held = all(attack.blocked == attack.total for attack in attacks)
        return DrillReport(held and not left and probe_ms < PROBE_MS_MAX, attacks, probe_ms, left)

    async def _attempt(self, number: str, attempt: Attempt, stage: Stage, traps: Traps) -> DrillAttempt:
        began_s = self._now_s()
        args = _filled(attempt.args, traps.places)
        opts = {**attempt.opts, **({"timeout": attempt.timeout_ms} if attempt.timeout_ms else {})}
        reply = await self._call(AttemptCall(attempt.role, attempt.tool, args, opts, stage.name))
        took_ms = round((self._now_s() - began_s) * 1000, 1)
        error = reply.get("error") or {}
        harm = [*traps.heard(), *await stage.harm(_said(reply))]
        refused = error.get("class") == _REFUSALS
        return DrillAttempt(
            id=number, title=attempt.title, role=attempt.role, tool=attempt.tool,
            outcome="harm" if harm else "refused" if refused else "contained",
            code=str(error.get("code", "")), harm=harm, would_lose=attempt.would_lose, took_ms=took_ms,
        )  # fmt: skip

    async def _probe(self, workspace: str) -> None:
        """Another agent that only reads: how long it has to wait while the attacks go on."""
        while True:
            began_s = self._now_s()
            await self._call(AttemptCall("critic", "fs", {"read": "/code/story.txt"}, {}, workspace))
            self._slowest_s = max(self._slowest_s, self._now_s() - began_s)
            await asyncio.sleep(PROBE_EVERY_S)


def _filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, str):
        return places.get(value, value)
    if isinstance(value, list):
        return [_filled(item, places) for item in value]
    return {key: _filled(item, places) for key, item in value.items()} if isinstance(value, dict) else value


def _said(reply: dict[str, Any]) -> str:
    return msgspec.json.encode(reply).decode()
