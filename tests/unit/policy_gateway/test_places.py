"""Places shared among roles: no role takes all, nobody who waits is forgotten, none is lost."""

import asyncio

import pytest

from services.policy_gateway.places import Places, share
from tests.support.eventually import eventually


async def take(places: Places, role: str, got: list[str]) -> None:
    await places.acquire(role)
    got.append(role)


async def test_one_role_leaves_places_for_others() -> None:
    places, got = Places(8), list[str]()
    many = [asyncio.create_task(take(places, "coder", got)) for _ in range(20)]
    await eventually(lambda: len(got) == share(8) == 6)
    await asyncio.wait_for(take(places, "tester", got), 1)
    await asyncio.wait_for(take(places, "critic", got), 1)
    places.release("coder")
    await eventually(lambda: got.count("coder") == 7)
    for task in many:
        task.cancel()


async def test_who_waits_is_served_role_by_role() -> None:
    places, got = Places(1), list[str]()
    await places.acquire("first")
    waiting = [asyncio.create_task(take(places, role, got)) for role in ("coder", "coder", "coder", "tester", "critic")]
    await asyncio.sleep(0)
    for number, last in enumerate(["first", "coder", "tester", "critic", "coder"]):
        places.release(last)
        await eventually(lambda expected=number + 1: len(got) == expected)
    assert got == ["coder", "tester", "critic", "coder", "coder"]
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("granted", [True, False])
async def test_who_gives_up_waiting_takes_no_place_along(granted: bool) -> None:
    places, got = Places(1), list[str]()
    await places.acquire("coder")
    waiting = asyncio.create_task(take(places, "tester", got))
    await asyncio.sleep(0)
    if granted:
        places.release("coder")  # given to it in the very turn in which it is cancelled
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if not granted:
        places.release("coder")
    await asyncio.wait_for(places.acquire("critic"), 1)
