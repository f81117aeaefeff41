"""The LLM path: from a stored request to the journaled answer, with a mock model that takes no time."""

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts import streams, subjects
from contracts.errors import Rejected
from contracts.llm import LlmInput, LlmRequest
from services.console.bench.figures import percentile, spread

if TYPE_CHECKING:
    from services.runtime.bus import Bus, Message

MODEL: Final = "mock"
SEQUENTIAL: Final = 300
CROWD: Final = 4_000
IN_FLIGHT: Final = 32
DEADLINE_S: Final = 120.0


class LlmBench:
    """Stores requests as the executor does and sees the answers as any subscriber does: after their commit."""

    def __init__(self, bus: "Bus") -> None:
        self._bus = bus
        self._run_id = f"bench-{secrets.token_hex(5)}"
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._count = 0

    async def start(self) -> None:
        """Subscribe to the committed answers."""
        await self._bus.subscribe(f"{subjects.LLM_RESPONSE_EDGE}.{self._run_id}.*", self._answered)

    def _answered(self, message: "Message") -> None:
        answered = self._waiting.pop(message.subject.rsplit(".", 1)[1], None)
        if answered is None:
            return
        if b'"error"' in message.data:
            answered.set_exception(Rejected("internal", "the mock model failed", answer=message.data.decode()))
        else:
            answered.set_result(None)

    async def call(self) -> float:
        """One request; seconds until its journaled answer was seen."""
        self._count += 1
        node_id = f"n{self._count}"
        corr_id = f"{self._run_id}-{node_id}"
        answered = self._waiting[node_id] = asyncio.get_running_loop().create_future()
        request = LlmRequest(
            run_id=self._run_id,
            node_id=node_id,
            corr_id=corr_id,
            model_id=MODEL,
            input=LlmInput(messages=[{"role": "user", "content": "Say hello."}]),
        )
        began = time.perf_counter()
        stored = self._bus.store(
            subjects.llm_request(MODEL), msgspec.json.encode(request), stream=streams.LLM_REQUESTS, msg_id=corr_id
        )
        async with asyncio.timeout(DEADLINE_S):
            await stored
            await answered
        return time.perf_counter() - began

    async def crowd(self, count: int, in_flight: int) -> float:
        """Requests per second with so many in flight."""
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                await self.call()

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return count / (time.perf_counter() - began)


async def llm(bench: LlmBench, *, n: int | None, reps: int) -> dict[str, Any]:
    """Overhead of the LLM path: latency one by one, throughput with 32 in flight."""
    await bench.crowd(200, 8)
    latencies = [[await bench.call() * 1e3 for _ in range(SEQUENTIAL)] for _ in range(reps)]
    speeds = [await bench.crowd(n or CROWD, IN_FLIGHT) for _ in range(reps)]
    return {
        "requests": n or CROWD,
        "in_flight": IN_FLIGHT,
        "p50_ms": spread([percentile(values, 0.5) for values in latencies], 3),
        "p99_ms": round(percentile([value for values in latencies for value in values], 0.99), 3),
        "requests_per_s": spread(speeds, 0),
    }
