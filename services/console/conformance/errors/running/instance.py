"""What the running instance says to requests that are wrong, and to a run that fails."""

import asyncio
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.reply import RemoteRejected
from contracts.subjects import rpc
from services.console import principal
from services.console.conformance.errors.responder import serving
from services.console.conformance.errors.running.requests import (
    GARBLED,
    WRONG,
    Wrong,
    after_run,
    failing,
    failing_codes,
)
from services.console.conformance.errors.verdict import judged
from services.console.conformance.point import Point

if TYPE_CHECKING:
    from services.runtime.bus import Bus

AT_ONCE: Final = 8
RUN_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.3
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode


class InstanceAnswers:
    """Asks one instance what is wrong. `wait_s` bounds each answer."""

    def __init__(self, bus: "Bus", wait_s: float) -> None:
        self._bus, self._wait_s = bus, wait_s
        self._mark = secrets.token_hex(4)
        self._places = asyncio.Semaphore(AT_ONCE)

    async def points(self) -> list[Point]:
        """One point for each thing that was asked."""
        parts = await asyncio.gather(self._of_requests(WRONG), self._of_run())
        return [point for part in parts for point in part]

    async def _of_requests(self, wrong: Iterable[Wrong]) -> list[Point]:
        return await asyncio.gather(*map(self._of_request, wrong))

    async def _of_request(self, wrong: Wrong) -> Point:
        try:
            async with self._places:
                error = await self._error_of(wrong)
        except Rejected as error_of_ours:
            return Point(wrong.code, "fail", f"{wrong.subject} does not answer: {error_of_ours.code}")
        return judged(wrong.code, error, wrong.subject)

    async def _error_of(self, wrong: Wrong) -> Any:
        data = wrong.body if isinstance(wrong.body, bytes) else _ENCODE(wrong.body)
        answer = await self._bus.request(wrong.subject, data, timeout_s=self._wait_s, headers=principal.headers())
        return _DECODE(answer.data).get("error")

    async def _of_run(self) -> list[Point]:
        """Tasks of a run that fail, and what is wrong to ask of it then."""
        run_id, garbled = f"conformance-{self._mark}", f"{GARBLED}.{self._mark}"
        codes = failing_codes()
        try:
            async with serving(self._bus, garbled, b"this is no JSON"):
                tasks = await self._failed_tasks(run_id, failing(garbled))
        except (Rejected, RemoteRejected) as error:
            return [Point(code, "fail", f"the run {run_id}: {error.code}") for code in codes]
        points = [judged(code, tasks.get(code), f"task {code} of the run {run_id}") for code in codes]
        return [*points, *await self._of_requests(after_run(run_id))]

    async def _failed_tasks(self, run_id: str, wanted: list[dict[str, Any]]) -> dict[str, Any]:
        await self._bus.call(
            rpc("executor", "run", "start"),
            {"run_id": run_id, "tasks": wanted},
            timeout_s=self._wait_s,
            headers=principal.headers(),
        )
        try:
            async with asyncio.timeout(RUN_S):
                while True:
                    view = await self._bus.call(
                        rpc("executor", "run", "get"), {"run_id": run_id}, timeout_s=self._wait_s
                    )
                    if view["status"] != "running":
                        return {task["id"]: task.get("error") for task in view["tasks"]}
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            raise Rejected("timeout", f"the run {run_id} did not end") from None
