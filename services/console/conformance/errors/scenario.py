"""One scenario: steps in a world of its own that end in refusals, and which codes it promises to have seen then."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from contracts.errors import Rejected
from contracts.reply import RemoteRejected
from services.console.conformance.errors.verdict import judged, judged_said
from services.console.conformance.point import Point

W = TypeVar("W")

LOOK_AGAIN_S: Final = 0.1
SCENARIO_S: Final = 45.0
"""Longer than any of them takes on a busy machine."""


class Sight:
    """What one scenario has seen."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.points: list[Point] = []

    async def refused(self, code: str, asked: Awaitable[Any], where: str) -> None:
        """Wait for what must be refused with `code`: by an exception of ours, or by the wire error it gives."""
        try:
            answer = await asked
        except Rejected as error:
            answer = error.to_wire()
        except RemoteRejected as error:
            answer = error.error
        self.error(code, answer, where)

    def raised(self, code: str, act: Callable[[], Any], where: str) -> None:
        """The same of a function that waits for nothing."""
        try:
            answer = act()
        except Rejected as error:
            answer = error.to_wire()
        self.error(code, answer, where)

    def error(self, code: str, error: Any, where: str) -> None:
        """A wire error that came otherwise: in a view, in an answer of a model."""
        self.points.append(judged(code, error, f"{self._where}: {where}"))

    def said(self, code: str, said: Any, where: str) -> None:
        """The end of a conversation, which must be a refusal with `code`."""
        self.points.append(judged_said(code, said, f"{self._where}: {where}"))


class Scenario(NamedTuple, Generic[W]):
    """Steps in a world, and the codes they produce."""

    codes: tuple[str, ...]
    play: Callable[[W, Sight], Awaitable[None]]


async def played(scenario: Scenario[W], world: W, where: str) -> list[Point]:
    """The points of one scenario. What breaks on the way fails the codes that were not seen by then."""
    sight = Sight(where)
    try:
        async with asyncio.timeout(SCENARIO_S):
            await scenario.play(world, sight)
        why = "not asked for"
    except (Rejected, RemoteRejected) as error:
        why = str(error)
    except TimeoutError:
        why = f"not within {SCENARIO_S:g} s"
    except (OSError, LookupError, TypeError, ValueError, StopIteration) as error:
        why = f"{type(error).__name__}: {error}"  # an answer that is not as it should be
    seen = {point.name for point in sight.points}
    left = (code for code in scenario.codes if code not in seen)
    return [*sight.points, *(Point(code, "fail", f"{where}: {why}") for code in left)]


async def played_in_order(scenarios: Iterable[Scenario[W]], world: W, where: str) -> list[Point]:
    """Scenarios that leave the world changed for the next one."""
    return [point for scenario in scenarios for point in await played(scenario, world, where)]


def codes_of(scenarios: Iterable[Scenario[Any]]) -> list[str]:
    """What they promise, in order."""
    return [code for scenario in scenarios for code in scenario.codes]


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Look again and again until there is something; the deadline is the caller's, as a scenario's is."""
    while True:
        found = await look()
        if found:
            return found
        await asyncio.sleep(LOOK_AGAIN_S)


def not_there(what: str) -> Rejected:
    """For what a scenario needs and does not find."""
    return Rejected("internal", f"the scenario finds no {what}")
