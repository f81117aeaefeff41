"""Who waits for a judge takes turns with the others, and the queue is bounded for whoever fills it."""

import asyncio

import pytest

from services.llm_worker.judging.turns import Full, Turns
from tests.support.eventually import eventually


async def waiting(turns: Turns, asker: str, served: list[str]) -> asyncio.Task[None]:
    """Somebody who waits by now."""

    async def wait() -> None:
        await turns.take(asker)
        served.append(asker)

    before = len(turns._queues.get(asker, ()))
    task = asyncio.create_task(wait())
    await eventually(lambda: len(turns._queues.get(asker, ())) > before)
    return task


async def test_askers_take_turns():
    turns, served = Turns(1, 10), list[str]()
    await turns.take("first")
    for asker in ("many", "many", "many", "one"):
        await waiting(turns, asker, served)
    for count in range(4):
        turns.release()
        await eventually(lambda count=count: len(served) == count + 1)
    assert served == ["many", "one", "many", "many"]
    turns.release()
    await turns.take("any")


async def test_a_full_queue_is_full_for_whoever_fills_it():
    turns, served = Turns(1, 3), list[str]()
    await turns.take("first")
    many = [await waiting(turns, "many", served) for _ in range(3)]
    with pytest.raises(Full):
        await turns.take("many")
    one = await waiting(turns, "one", served)
    with pytest.raises(Full):
        await many[2]
    assert (turns.waiting, one.done()) == (3, False)


async def test_who_gives_up_keeps_no_place():
    turns, served = Turns(1, 10), list[str]()
    await turns.take("first")
    gone, given = await waiting(turns, "a", served), await waiting(turns, "b", served)
    gone.cancel()
    turns.release()  # before "a" has noticed
    given.cancel()  # in the very moment in which it has the place
    await asyncio.wait([gone, given])
    assert (served, turns.waiting) == ([], 0)
    async with asyncio.timeout(1):
        await turns.take("c")
