"""Task graphs: whether one is sound, and an order in which every task stands behind what it waits for.

Iterative, so that a chain of 50,000 tasks is no deep recursion. Every task counts twice, as its start and its end:
a group starts before its children and ends after them, so a child that waits for its own group is found as a cycle.
"""

import heapq
from collections.abc import Container, Sequence

from contracts.errors import Rejected
from contracts.task import GroupNode, TaskSpec

CYCLE_SHOWN_MAX = 20


def check_graph(tasks: Sequence[TaskSpec], known: Container[str] = ()) -> None:
    """Refuse a batch with duplicate_id, unknown_dependency or cycle.

    `depends_on` may name tasks of the batch or `known` ones; `parent` only groups of the batch.
    """
    index: dict[str, int] = {}
    for number, task in enumerate(tasks):
        if task.id in index:
            raise Rejected("duplicate_id", f"task {task.id} is in the batch twice", task_id=task.id)
        index[task.id] = number
    for task in tasks:
        for needed in task.depends_on:
            if needed not in index and needed not in known:
                raise Rejected(
                    "unknown_dependency",
                    f"{task.id} depends on {needed[:80]}, which is no task here",
                    task_id=task.id,
                    dependency=needed[:80],
                )
        if task.parent is not None:
            _check_parent(task, tasks, index)
    in_order(tasks, index)


def _check_parent(task: TaskSpec, tasks: Sequence[TaskSpec], index: dict[str, int]) -> None:
    place = index.get(task.parent or "")
    if place is None:
        raise Rejected(
            "unknown_dependency",
            f"the parent of {task.id} is not in this batch",
            task_id=task.id,
            dependency=(task.parent or "")[:80],
            field="parent",
        )
    if not isinstance(tasks[place].node, GroupNode):
        raise Rejected(
            "bad_request", f"{task.parent} is no group: it takes no children", task_id=task.id, field="parent"
        )


def in_order(tasks: Sequence[TaskSpec], index: dict[str, int] | None = None) -> list[TaskSpec]:
    """The tasks with each behind its dependencies and its parent, else as they came. Raises Rejected("cycle")."""
    if index is None:
        index = {task.id: number for number, task in enumerate(tasks)}
    followers, waiting = _edges(tasks, index)
    ready = [node for node, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    ordered: list[TaskSpec] = []
    passed = 0
    while ready:
        node = heapq.heappop(ready)
        passed += 1
        if node % 2 == 0:
            ordered.append(tasks[node // 2])
        for follower in followers[node]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    if passed < len(waiting):
        cycle = _find_cycle(tasks, followers, waiting)
        shown = cycle[:CYCLE_SHOWN_MAX]
        raise Rejected("cycle", "the dependencies form a cycle: " + " -> ".join(shown), cycle=shown)
    return ordered


def _edges(tasks: Sequence[TaskSpec], index: dict[str, int]) -> tuple[list[list[int]], list[int]]:
    """Who comes behind each node, and for how many each node waits; node 2n is the start of task n, 2n+1 its end."""
    followers: list[list[int]] = [[] for _ in range(2 * len(tasks))]
    waiting = [0] * (2 * len(tasks))

    def behind(before: int, after: int) -> None:
        followers[before].append(after)
        waiting[after] += 1

    for number, task in enumerate(tasks):
        behind(2 * number, 2 * number + 1)
        for needed in task.depends_on:
            if needed in index:
                behind(2 * index[needed] + 1, 2 * number)
        if task.parent in index:
            parent = index[task.parent]
            behind(2 * parent, 2 * number)
            behind(2 * number + 1, 2 * parent + 1)
    return followers, waiting


def _find_cycle(tasks: Sequence[TaskSpec], followers: list[list[int]], waiting: list[int]) -> list[str]:
    """Ids along one cycle, the first again at the end. What still waits has somebody still waiting before it."""
    before: dict[int, int] = {}
    for node, after in enumerate(followers):
        if waiting[node] > 0:
            for follower in after:
                before.setdefault(follower, node)
    node = next(iter(before))
    seen: dict[int, int] = {}
    path: list[int] = []
    while node not in seen:
        seen[node] = len(path)
        path.append(node)
        node = before[node]
    loop = [tasks[step // 2].id for step in reversed(path[seen[node] :])]
    ids = [task_id for place, task_id in enumerate(loop) if place == 0 or loop[place - 1] != task_id]
    if len(ids) == 1 or ids[0] != ids[-1]:
        ids.append(ids[0])
    return ids
