"""Whoever comes, goes or gives up in whatever order: writers are alone, nobody waits for nothing or is passed over."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from services.policy_gateway.turns import Access, Turns

STEPS = st.lists(st.tuples(st.sampled_from(["shared", "alone", "goes", "gives up"]), st.integers(0, 9)), max_size=40)


class Visitor:
    """One who wants a turn, has it, and leaves when told."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.inside = False
        self.leaves = asyncio.Event()

    async def visit(self, turns: Turns) -> None:
        async with turns.take("shop", self.access):
            self.inside = True
            await self.leaves.wait()
            self.inside = False


async def tell(steps: list[tuple[str, int]]) -> None:
    turns = Turns()
    there: dict[Visitor, asyncio.Task[None]] = {}

    async def settled() -> None:
        for _ in range(4 * len(there) + 4):
            await asyncio.sleep(0)
        for visitor in [visitor for visitor, task in there.items() if task.done()]:
            del there[visitor]
        inside = [visitor for visitor in there if visitor.inside]
        waiting = [visitor for visitor in there if not visitor.inside]
        assert len(inside) < 2 or all(visitor.access == "shared" for visitor in inside)
        assert inside or not waiting, "nobody is there, and yet somebody waits"
        if waiting and all(visitor.access == "shared" for visitor in inside):
            assert waiting[0].access == "alone", "the first in line could come in"

    for what, which in steps:
        inside = [visitor for visitor in there if visitor.inside]
        if what == "goes" and inside:
            inside[which % len(inside)].leaves.set()
        elif what == "gives up" and there:
            [*there.values()][which % len(there)].cancel()
        elif what in ("shared", "alone"):
            visitor = Visitor("shared" if what == "shared" else "alone")
            there[visitor] = asyncio.create_task(visitor.visit(turns))
        await settled()
    while there:
        for visitor in there:
            visitor.leaves.set()
        await settled()
    assert not turns._lines, "an empty workspace is remembered"


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_turns_hold_in_every_story(steps: list[tuple[str, int]]) -> None:
    asyncio.run(tell(steps))
