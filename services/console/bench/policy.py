"""The policy-gateway: a dry decision, and a tool call of each kind from the request to its reply, audit included."""

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from contracts.errors import Rejected
from contracts.subjects import rpc, tool_call
from services.console.bench.figures import percentile, spread

if TYPE_CHECKING:
    from services.runtime.bus import Bus

SEQUENTIAL: Final = 200
CROWD: Final = 4_000
IN_FLIGHT: Final = 32
FILE: Final = "/code/bench.txt"
DECIDE: Final = {"role": "coder", "tool": "git", "args": {"cmd": ["commit", "-m", "Add feature"]}, "opts": {}}
CALLS: Final[dict[str, tuple[str, str, dict[str, Any], int]]] = {
    "fs_read": ("critic", "fs", {"read": FILE}, SEQUENTIAL),
    "lua": ("critic", "lua", {"src": "function main(a) return {n = a + 1} end", "argv": [41]}, SEQUENTIAL),
    "git_status": ("coder", "git", {"cmd": ["status", "--short"]}, 20),
}
"""Name of the figure: role, tool, arguments, calls per repetition."""


class PolicyBench:
    """Speaks to a gateway as anybody does."""

    def __init__(self, bus: "Bus") -> None:
        self._bus = bus

    async def prepare(self) -> None:
        """A file to read and a repository to look at, made by the tools themselves."""
        await self.call("coder", "fs", {"write": FILE, "content": "x" * 4_000})
        await self.call("admin", "git", {"cmd": ["init", "--quiet"]})

    async def call(self, role: str, tool: str, args: dict[str, Any]) -> float:
        """One tool call; seconds until its reply."""
        began = time.perf_counter()
        await self._bus.call(tool_call(role, tool), {"args": args, "opts": {}}, timeout_s=60)
        return time.perf_counter() - began

    async def decide(self) -> float:
        """One dry decision; seconds until its reply."""
        began = time.perf_counter()
        verdict = await self._bus.call(rpc("policy-gateway", "policy", "decide"), DECIDE, timeout_s=10)
        if verdict.get("verdict") != "allow":
            raise Rejected("internal", "the measured decision was not allowed", verdict=verdict)
        return time.perf_counter() - began

    async def crowd(self, count: int, in_flight: int) -> float:
        """Dry decisions per second with so many in flight."""
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                await self.decide()

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return count / (time.perf_counter() - began)


async def policy(bench: PolicyBench, *, n: int | None, reps: int) -> dict[str, Any]:
    """Figures of decisions and calls; milliseconds are medians of the medians."""
    await bench.prepare()
    await bench.crowd(400, IN_FLIGHT)
    decided = [[await bench.decide() * 1e3 for _ in range(SEQUENTIAL)] for _ in range(reps)]
    figures: dict[str, Any] = {
        "decide_p50_ms": spread([percentile(values, 0.5) for values in decided], 3),
        "decides_per_s": spread([await bench.crowd(n or CROWD, IN_FLIGHT) for _ in range(reps)], 0),
    }
    for name, (role, tool, args, count) in CALLS.items():
        await bench.call(role, tool, args)
        took = [[await bench.call(role, tool, args) * 1e3 for _ in range(count)] for _ in range(reps)]
        figures[f"{name}_p50_ms"] = spread([percentile(values, 0.5) for values in took], 3)
    return figures
