"""Whatever a strategy answers, a plan has no cycle, no unknown id, and no task deeper than 5."""

import asyncio
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.limits import ATOMIC_BELOW_COMPLEXITY, TASK_DEPTH_MAX
from contracts.task import AgentNode, GroupNode
from services.planner.decompose import PLAN_TASKS_MAX, decompose
from services.planner.graph import check_graph, in_order

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_LOCAL = st.text(alphabet="ab-_", min_size=1, max_size=40)
_SHAPE = st.lists(st.tuples(_LOCAL, st.floats(0, 30), st.booleans()), max_size=3, unique_by=lambda one: one[0])


class Shapes:
    """A strategy whose answers come from a list, over and over."""

    def __init__(self, shapes: list[list[tuple[str, float, bool]]]) -> None:
        self._shapes = shapes
        self._calls = 0

    async def call(self, src: str, context: Any, *, argv: Any = (), timeout_ms: int = 5000, stage: str = "lua") -> Any:
        shape = self._shapes[self._calls % len(self._shapes)]
        self._calls += 1
        subtasks = []
        for place, (local, complexity, waits) in enumerate(shape):
            before = [shape[place - 1][0]] if waits and place else []
            subtasks.append(
                {"id": local, "description": local, "estimated_complexity": complexity, "dependencies": before}
            )
        return {"subtasks": subtasks, "strategy": "shapes", "reasoning": ""}


@settings(max_examples=60, deadline=None)
@given(st.lists(_SHAPE, min_size=1, max_size=8), st.floats(0, 100), st.text(min_size=1, max_size=50))
def test_every_plan_is_a_sound_graph(shapes: list[Any], complexity: float, goal: str) -> None:
    made = asyncio.run(decompose(goal, complexity, "script", Shapes(shapes)))
    tasks = made.tasks
    ids = {task.id for task in tasks}
    check_graph(tasks)
    assert len(in_order(tasks)) == len(tasks) == len(ids) <= PLAN_TASKS_MAX
    assert all(_ID.match(task_id) for task_id in ids)
    assert all(needed in ids for task in tasks for needed in task.depends_on)
    assert made.depth == max(task.depth for task in tasks) <= TASK_DEPTH_MAX
    parents = {task.parent for task in tasks if task.parent is not None}
    assert parents == {task.id for task in tasks if isinstance(task.node, GroupNode)}
    by_id = {task.id: task for task in tasks}
    for task in tasks:
        if task.parent is not None:
            assert task.depth == by_id[task.parent].depth + 1
        if isinstance(task.node, GroupNode):
            assert task.estimated_complexity >= ATOMIC_BELOW_COMPLEXITY
        else:
            assert isinstance(task.node, AgentNode)


@settings(max_examples=20, deadline=None)
@given(st.lists(_SHAPE, min_size=1, max_size=4), st.floats(0, 100))
def test_the_same_answers_give_the_same_plan(shapes: list[Any], complexity: float) -> None:
    first = asyncio.run(decompose("Build it", complexity, "script", Shapes(shapes)))
    assert asyncio.run(decompose("Build it", complexity, "script", Shapes(shapes))) == first
