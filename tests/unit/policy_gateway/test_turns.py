"""Turns in a workspace: writers alone, readers together, in the order of asking, and nobody is lost."""

import asyncio
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import (
    DockerPlan,
    FetchPlan,
    GitPlan,
    LuaPlan,
    Mount,
    Place,
    ReadPlan,
    ShellPlan,
    WritePlan,
)
from services.policy_gateway.toolkit import Toolkit
from services.policy_gateway.tools.tool import Ticket, Workspace
from services.policy_gateway.turns import WAITED, WAITING, Access, Turns, access_of
from services.runtime.metrics import Metrics
from tests.support.eventually import eventually

CODE = Place("code", ())
SHELL = ShellPlan("mix", ("mix", "test"), CODE, "coder")
WRITE = WritePlan(Place("code", ("a",)), b"x")
STATUS = GitPlan(("status",), CODE, False, "git")
COMMIT = GitPlan(("commit",), CODE, True, "git")


def docker(*mounts: bool) -> DockerPlan:
    return DockerPlan("i", ("c",), None, tuple(Mount(CODE, "/work", read_only) for read_only in mounts), 1.0, 1 << 20)


class Party:
    """Some who want a turn; the test lets each of them go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.inside: list[str] = []
        self.done: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def comes(self, name: str, access: Access, workspace: str = "shop") -> None:
        self.done[name] = asyncio.Event()

        async def be() -> None:
            async with self.turns.take(workspace, access):
                self.inside.append(name)
                await self.done[name].wait()
                self.inside.remove(name)

        self.tasks[name] = asyncio.create_task(be())
        await asyncio.sleep(0)

    async def goes(self, name: str) -> None:
        self.done[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)

    async def gives_up(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name]])
        await asyncio.sleep(0)


async def test_writers_are_alone_readers_share_and_all_come_in_order() -> None:
    metrics = Metrics()
    party = Party(Turns(metrics))
    order: list[tuple[str, Access]] = [
        ("r1", "shared"), ("r2", "shared"), ("w1", "alone"), ("r3", "shared"), ("w2", "alone"),
    ]  # fmt: skip
    for name, access in order:
        await party.comes(name, access)
    assert party.inside == ["r1", "r2"]
    assert metrics.value(WAITING) == 3
    await party.goes("r1")
    assert party.inside == ["r2"]
    await party.goes("r2")
    assert party.inside == ["w1"]
    await party.comes("r4", "shared")  # behind w2, though a reader is before it
    await party.goes("w1")
    assert party.inside == ["r3"]
    await party.goes("r3")
    assert party.inside == ["w2"]
    await party.goes("w2")
    assert party.inside == ["r4"]
    await party.goes("r4")
    assert metrics.value(WAITING) == 0
    assert "htdag_workspace_wait_seconds_count" in metrics.render().decode()
    assert WAITED.startswith("htdag_workspace")


async def test_other_workspaces_are_not_held_up() -> None:
    party = Party(Turns())
    await party.comes("w1", "alone", "shop")
    await party.comes("w2", "alone", "bank")
    assert party.inside == ["w1", "w2"]


async def test_who_gives_up_is_passed_over_and_who_is_behind_comes_in() -> None:
    party = Party(Turns())
    await party.comes("r1", "shared")
    await party.comes("w1", "alone")
    await party.comes("r2", "shared")
    assert party.inside == ["r1"]
    await party.gives_up("w1")
    assert party.inside == ["r1", "r2"]
    await party.gives_up("r1")
    await party.goes("r2")
    await party.comes("w2", "alone")
    assert party.inside[-1:] == ["w2"]


async def test_a_turn_that_comes_as_its_owner_gives_up_is_passed_on() -> None:
    party = Party(Turns())
    await party.comes("w1", "alone")
    await party.comes("w2", "alone")
    await party.comes("w3", "alone")
    party.done["w1"].set()
    await asyncio.sleep(0)  # w1 has left and called w2, which has not run yet
    party.tasks["w2"].cancel()
    await eventually(lambda: party.inside == ["w3"])
    await party.goes("w3")
    await party.comes("w4", "alone")
    assert party.inside == ["w4"]


@pytest.mark.parametrize(
    ("plan", "access"),
    [
        (STATUS._replace(argv=("add", ".")), "alone"),
        (STATUS._replace(argv=("restore", "a")), "alone"),
        (STATUS._replace(argv=("branch", "--list")), "shared"),
        (COMMIT._replace(argv=("branch", "new")), "alone"),
        (WRITE, "alone"),
        (SHELL, "alone"),
        (COMMIT, "alone"),
        (STATUS, "shared"),
        (docker(), None),
        (docker(True), "shared"),
        (docker(True, False), "alone"),
        (ReadPlan(CODE, 1), None),
        (LuaPlan("return 1", ()), None),
        (FetchPlan("GET", "https", "h", 443, "/", (), None, None), None),
    ],
)
def test_what_may_change_files_is_alone(plan, access: Access | None) -> None:
    assert access_of(plan) == access


class Slow:
    """A tool that says what ran at the same time."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.go = asyncio.Event()

    async def run(self, plan, ticket: Ticket) -> dict:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go.wait()
        self.running -= 1
        return {}


async def test_who_waits_for_a_turn_takes_no_slot_and_waits_no_longer_than_its_deadline() -> None:
    slow, loop = Slow(), asyncio.get_running_loop()
    toolkit = Toolkit({ShellPlan: slow}, light=1, heavy=3)

    def call(name: str, within_s: float = 10.0) -> "asyncio.Task":
        place = Workspace(name, Path("/") / name, Path("/tmp"), "seed")
        ticket = Ticket("c", "coder", place, loop.time() + within_s)
        return asyncio.create_task(toolkit.run(SHELL, ticket, round(within_s * 1000)))

    first, late = call("shop"), call("shop", 0.05)
    with pytest.raises(Rejected, match="waited in line"):
        await late
    second, other = call("shop"), call("bank")
    await eventually(lambda: slow.running == 2)
    slow.go.set()
    await asyncio.gather(first, second, other)
    assert slow.most == 2


async def test_what_comes_too_late_is_not_begun() -> None:
    slow = Slow()
    ticket = Ticket("c", "coder", Workspace("w", Path("/w"), Path("/tmp"), "seed"), 0.0)
    with pytest.raises(Rejected, match="timeout"):
        await Toolkit({ShellPlan: slow}, light=1, heavy=2).run(SHELL, ticket, 1)
    assert slow.most == 0
