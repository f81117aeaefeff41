"""Whether an instance refuses as its contract says: each code is produced once and judged by the published schema."""

import asyncio
import secrets
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts.errors import CATALOGUE, Rejected, failure
from contracts.subjects import rpc
from services.console import principal
from services.console.conformance.point import Point
from services.console.conformance.wrong_requests import FAILING, WRONG, Wrong, after_run, tiring

if TYPE_CHECKING:
    from jsonschema_rs import Validator

    from services.runtime.bus import Bus

AT_ONCE: Final = 8
RUN_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.3
TIRED_AFTER: Final = 5
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode


class ErrorAnswers:
    """Asks one instance what is wrong. `wait_s` bounds each answer."""

    def __init__(self, bus: "Bus", wait_s: float) -> None:
        self._bus, self._wait_s = bus, wait_s
        self._mark = secrets.token_hex(4)
        self._places = asyncio.Semaphore(AT_ONCE)

    async def points(self) -> list[Point]:
        """One point for each code of the catalogue, in its order.

        Codes that need a circumstance nobody should make on an instance that works (a full disk, a dead service, a
        locked account) are notes: their shape is checked, and what they mean is said.
        """
        found: dict[str, Point] = {}
        parts = await asyncio.gather(self._of_requests(WRONG), self._of_run(), self._of_breaker())
        for point in (point for part in parts for point in part):
            if point.name not in found or point.outcome == "fail":
                found[point.name] = point
        return [found.get(code) or _unasked(code) for code in CATALOGUE]

    async def _of_requests(self, wrong: Iterable[Wrong]) -> list[Point]:
        return await asyncio.gather(*map(self._of_request, wrong))

    async def _of_request(self, wrong: Wrong) -> Point:
        try:
            async with self._places:
                error = await self._error_of(wrong)
        except Rejected as error_of_ours:
            return Point(wrong.code, "fail", f"{wrong.subject} does not answer: {error_of_ours.code}")
        return _judged(wrong.code, error, wrong.subject)

    async def _error_of(self, wrong: Wrong) -> Any:
        data = wrong.body if isinstance(wrong.body, bytes) else _ENCODE(wrong.body)
        answer = await self._bus.request(wrong.subject, data, timeout_s=self._wait_s, headers=principal.headers())
        return _DECODE(answer.data).get("error")

    async def _of_run(self) -> list[Point]:
        """Tasks of a run that fail, and what is wrong to ask of it then."""
        run_id = f"conformance-{self._mark}"
        try:
            tasks = await self._failed_tasks(run_id)
        except Rejected as error:
            return [Point(str(task["id"]), "fail", f"the run {run_id}: {error.code}") for task in FAILING]
        points = [_judged(code, tasks.get(code), f"task {code} of the run {run_id}") for code in map(_id, FAILING)]
        return [*points, *await self._of_requests(after_run(run_id))]

    async def _failed_tasks(self, run_id: str) -> dict[str, Any]:
        await self._bus.call(
            rpc("executor", "run", "start"),
            {"run_id": run_id, "tasks": FAILING},
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

    async def _of_breaker(self) -> list[Point]:
        """A model of its own, that nobody else asks, is failed until it is left alone."""
        model = f"mock:hang,seed={int(self._mark, 16)}"
        for _ in range(TIRED_AFTER):
            point = await self._of_request(tiring(model))
            if point.outcome != "pass":
                return [point]
        return [await self._of_request(tiring(model)._replace(code="circuit_open"))]


def _id(task: dict[str, Any]) -> str:
    return str(task["id"])


def _judged(code: str, error: Any, where: str) -> Point:
    """Whether this is an error of the one shape, under the code that was expected."""
    if not isinstance(error, dict):
        return Point(code, "fail", f"{where}: no error")
    wrong = next(_schema().iter_errors(error), None)
    if wrong is not None:
        return Point(code, "fail", f"{where}: {wrong.message}")
    if error["code"] != code:
        return Point(code, "fail", f"{where}: {error['code']} instead")
    if error["class"] != CATALOGUE[code].error_class:
        return Point(code, "fail", f"{where}: its class is {error['class']}")
    return Point(code, "pass", where)


def _unasked(code: str) -> Point:
    point = _judged(code, failure(code), "the catalogue")
    return point if point.outcome == "fail" else Point(code, "note", f"not produced here: {CATALOGUE[code].message}")


@cache
def _schema() -> "Validator":
    import jsonschema_rs

    document = msgspec.json.decode(resources.files("contracts").joinpath("asyncapi.json").read_bytes())
    return jsonschema_rs.validator_for(document["components"]["schemas"]["Error"])
