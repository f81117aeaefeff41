"""Whether htdag refuses as its contract says: each code is produced once and judged by the published schema.

Most codes are had from the instance that runs, by requests that are wrong and by a run that fails. What would do it
harm - locked accounts, a full disk, dead services - is done to a scratch instance and to brokers of our own, which end
with the command. What no instance can be brought to within seconds is asked of the very functions in this process.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from contracts.errors import CATALOGUE, Rejected
from services.console.conformance.errors.broker.bare import Room, bare_broker
from services.console.conformance.errors.broker.shortages import LITTLE_ROOM, WITHOUT_JETSTREAM
from services.console.conformance.errors.folder import thrown_away
from services.console.conformance.errors.here.console import CONSOLE
from services.console.conformance.errors.here.services import SERVICES
from services.console.conformance.errors.running.instance import InstanceAnswers
from services.console.conformance.errors.running.requests import WRONG, after_run, failing_codes
from services.console.conformance.errors.scenario import Scenario, codes_of, played_in_order
from services.console.conformance.errors.scratch.forged_logs import FORGED_LOGS
from services.console.conformance.errors.scratch.gates import GATES
from services.console.conformance.errors.scratch.gone_services import GONE_SERVICES
from services.console.conformance.errors.scratch.instance import scratch_instance
from services.console.conformance.errors.scratch.llm import LLM
from services.console.conformance.errors.scratch.people import PEOPLE
from services.console.conformance.errors.scratch.runs import RUNS
from services.console.conformance.errors.scratch.tools import TOOLS
from services.console.conformance.errors.verdict import unasked
from services.console.conformance.point import Point

if TYPE_CHECKING:
    from services.runtime.bus import Bus

WHOLE_S: Final = 240.0
"""Far longer than all of it takes; each part has a deadline of its own."""
SIDE_BY_SIDE: Final[Sequence[Sequence[Scenario[Any]]]] = ((*PEOPLE, *GATES), (*RUNS, *LLM), TOOLS)
"""On the scratch instance. Whoever moves its clock goes one after another."""
AT_ITS_END: Final[Sequence[Scenario[Any]]] = (*FORGED_LOGS, *GONE_SERVICES)
"""What leaves the scratch instance good for nothing else."""
SCRATCH: Final = (*(scenario for line in SIDE_BY_SIDE for scenario in line), *AT_ITS_END)
BROKERS: Final[dict[Room, Sequence[Scenario[Any]]]] = {"little room": LITTLE_ROOM, "no JetStream": WITHOUT_JETSTREAM}
HERE: Final[Sequence[Scenario[Any]]] = (*CONSOLE, *SERVICES)

Note = Callable[[str], None]


def asked_of_instance() -> list[str]:
    """The codes that the running instance is brought to say."""
    return [*(wrong.code for wrong in (*WRONG, *after_run("r"))), *failing_codes()]


def asked_of_scratch() -> list[str]:
    """The codes for which something is started, maltreated and thrown away."""
    return codes_of((*SCRATCH, *(scenario for line in BROKERS.values() for scenario in line)))


def asked_here() -> list[str]:
    """The codes that are asked of functions in this process."""
    return codes_of(HERE)


class ErrorAnswers:
    """Produces every code. `wait_s` bounds each answer of the instance, `note` hears how it goes."""

    def __init__(self, bus: "Bus", wait_s: float, note: Note) -> None:
        self._instance, self._note = InstanceAnswers(bus, wait_s), note

    async def points(self, *, scratch: bool) -> list[Point]:
        """One point for each code of the catalogue, in its order.

        Without `scratch` nothing is started, and the codes that need it are notes.
        """
        work = [self._part("the running instance", self._instance.points()), self._part("this process", _here())]
        if scratch:
            work.append(self._part("a scratch instance", _scratch()))
            work += [self._part(f"a broker with {room}", _broker(room)) for room in BROKERS]
        try:
            async with asyncio.timeout(WHOLE_S), asyncio.TaskGroup() as group:
                parts = [group.create_task(one) for one in work]
        except TimeoutError:
            raise Rejected("timeout", f"not everything was answered within {WHOLE_S:g} s") from None
        found: dict[str, Point] = {}
        for point in (point for part in parts for point in part.result()):
            if point.name not in found or point.outcome == "fail":
                found[point.name] = point
        return [found.get(code) or _missing(code, scratch=scratch) for code in CATALOGUE]

    async def _part(self, what: str, work: Coroutine[Any, Any, list[Point]]) -> list[Point]:
        self._note(f"{what}: asking")
        points = await work
        failed = sum(point.outcome == "fail" for point in points)
        self._note(f"{what}: {len(points)} answers, {failed} of them wrong")
        return points


def _missing(code: str, *, scratch: bool) -> Point:
    """A code that nobody produced: that is a failure, unless it was wished."""
    if scratch:
        return Point(code, "fail", "nothing here produces it")
    return unasked(code, "it takes a scratch instance (--scratch)")


async def _here() -> list[Point]:
    with thrown_away() as folder:
        return await played_in_order(HERE, Path(folder), "here")


async def _broker(room: Room) -> list[Point]:
    try:
        async with bare_broker(room) as broker:
            return await played_in_order(BROKERS[room], broker, "a broker of its own")
    except (Rejected, OSError) as error:
        return _failed(BROKERS[room], f"the broker does not start: {error}")


async def _scratch() -> list[Point]:
    try:
        async with scratch_instance() as scratch:
            lines = (played_in_order(line, scratch, "scratch") for line in SIDE_BY_SIDE)
            parts = await asyncio.gather(*lines)
            points = [point for part in parts for point in part]
            return [*points, *await played_in_order(AT_ITS_END, scratch, "scratch")]
    except (Rejected, OSError) as error:
        return _failed(SCRATCH, f"the scratch instance does not start: {error}")


def _failed(scenarios: Iterable[Scenario[Any]], why: str) -> list[Point]:
    return [Point(code, "fail", why) for code in codes_of(scenarios)]
