"""A batch of tasks is sound, or refused with the code that says why."""

from itertools import pairwise

import pytest

from contracts.errors import Rejected
from contracts.task import AgentNode, GroupNode, TaskSpec
from services.planner.graph import check_graph, in_order


def task(task_id: str, *needs: str, parent: str | None = None, group: bool = False) -> TaskSpec:
    return TaskSpec(id=task_id, depends_on=list(needs), parent=parent, node=GroupNode() if group else AgentNode())


def refusal(*tasks: TaskSpec, known: set[str] | None = None) -> Rejected:
    with pytest.raises(Rejected) as refused:
        check_graph(tasks, known or set())
    return refused.value


def test_accepts_a_diamond_and_dependencies_on_known_tasks():
    check_graph([task("a", "old"), task("b", "a"), task("c", "a"), task("d", "b", "c")], {"old"})


def test_refuses_an_id_that_is_there_twice():
    assert refusal(task("a"), task("a")).code == "duplicate_id"


def test_refuses_a_dependency_on_nothing():
    error = refusal(task("a", "b"))
    assert (error.code, error.detail["dependency"]) == ("unknown_dependency", "b")


def test_refuses_a_task_that_depends_on_itself():
    error = refusal(task("a", "a"))
    assert (error.code, error.detail["cycle"]) == ("cycle", ["a", "a"])


def test_shows_the_cycle_and_not_what_hangs_on_it():
    error = refusal(task("first"), task("a", "first", "c"), task("b", "a"), task("c", "b"), task("late", "c"))
    assert error.code == "cycle"
    cycle = error.detail["cycle"]
    assert cycle[0] == cycle[-1]
    assert set(cycle) == {"a", "b", "c"}
    steps = list(pairwise(cycle))
    assert all(step in [("a", "b"), ("b", "c"), ("c", "a")] for step in steps)


def test_refuses_a_child_that_waits_for_its_own_group():
    assert refusal(task("g", group=True), task("x", "g", parent="g")).code == "cycle"


def test_refuses_a_group_that_waits_for_its_own_child():
    assert refusal(task("g", "x", group=True), task("x", parent="g")).code == "cycle"


def test_refuses_a_child_that_waits_for_what_waits_for_its_group():
    assert refusal(task("g", group=True), task("after", "g"), task("x", "after", parent="g")).code == "cycle"


def test_accepts_a_group_with_children_that_wait_for_each_other():
    check_graph([task("g", group=True), task("x", parent="g"), task("y", "x", parent="g"), task("after", "g")])


def test_refuses_a_parent_outside_the_batch_and_one_that_is_no_group():
    assert refusal(task("x", parent="g"), known={"g"}).code == "unknown_dependency"
    assert refusal(task("g"), task("x", parent="g")).code == "bad_request"


def test_orders_as_they_came_unless_something_must_come_first():
    tasks = [task("d", "b"), task("a"), task("b"), task("c")]
    assert [one.id for one in in_order(tasks)] == ["a", "b", "d", "c"]
    tasks = [task("a"), task("b"), task("c", "a")]
    assert in_order(tasks) == tasks


def test_a_chain_of_fifty_thousand_is_no_deep_recursion():
    tasks = [task("t0"), *(task(f"t{n}", f"t{n - 1}") for n in range(1, 50_000))]
    tasks.reverse()
    check_graph(tasks)
    assert in_order(tasks)[0].id == "t0"
