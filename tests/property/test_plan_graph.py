"""Graph laws: what is acyclic is accepted and ordered, what is not is refused with a true cycle."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.task import TaskSpec
from services.planner.graph import check_graph, in_order

_EDGES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30)


def _tasks(edges: list[tuple[int, int]]) -> list[TaskSpec]:
    needs: dict[int, list[str]] = {}
    for after, before in edges:
        needs.setdefault(after, []).append(f"t{before}")
    return [TaskSpec(id=f"t{number}", depends_on=needs.get(number, [])) for number in range(12)]


@given(_EDGES)
def test_forward_edges_never_form_a_cycle(edges: list[tuple[int, int]]) -> None:
    tasks = _tasks([(max(edge), min(edge)) for edge in edges if edge[0] != edge[1]])
    check_graph(tasks)
    place = {task.id: number for number, task in enumerate(in_order(tasks[::-1]))}
    assert len(place) == 12
    assert all(place[needed] < place[task.id] for task in tasks for needed in task.depends_on)


@given(_EDGES)
def test_a_refusal_shows_a_cycle_that_is_there(edges: list[tuple[int, int]]) -> None:
    tasks = {task.id: task for task in _tasks(edges)}
    cycle = _cycle_of(list(tasks.values()))
    if cycle is None:
        assert len(in_order(list(tasks.values()))) == 12
        return
    assert cycle[0] == cycle[-1]
    assert all(before in tasks[after].depends_on for before, after in pairwise(cycle))


def _cycle_of(tasks: list[TaskSpec]) -> list[str] | None:
    try:
        check_graph(tasks)
    except Rejected as refused:
        if refused.code != "cycle":
            raise
        cycle: list[str] = refused.detail["cycle"]
        return cycle
    return None
