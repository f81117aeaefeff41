"""Which strategy an open run follows, and when that changes."""

from contracts.limits import RUN_TIMEOUT_DEFAULT_MS
from contracts.run import AddTasks, RunResumed, TasksAdded
from contracts.task import TaskSpec
from tests.support.spec import NOW_MS
from tests.unit.executor.builders import done, noop, run

RUN_DEADLINE = NOW_MS + RUN_TIMEOUT_DEFAULT_MS


def test_at_rest_an_open_run_takes_the_strategy_of_what_is_added_and_under_way_it_keeps_its_own():
    def add(task: TaskSpec, strategy: str | None) -> AddTasks:
        return AddTasks("r1", [task], epic_id="default", strategy=strategy)

    spec = run().after(add(noop("a"), "standard@1"), add(noop("b"), "quick@1"))
    assert spec.state.strategy == "standard@1"
    spec.after(done("a"), done("b"))
    spec.when(add(noop("c"), "quick@2")).then(
        RunResumed(RUN_DEADLINE, "tasks were added", "quick@2"), TasksAdded([noop("c")])
    )
    spec.after(add(noop("c"), "quick@2"))
    assert spec.state.strategy == "quick@2"
    spec.after(done("c"), add(noop("d"), None))
    assert spec.state.strategy is None
