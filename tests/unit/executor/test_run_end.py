"""How a run ends."""

from contracts.run import CancelRun, RunEnded
from tests.unit.executor.builders import done, noop, run, start


def test_a_run_is_no_success_when_a_cancelled_task_left_others_behind() -> None:
    spec = run().after(start(noop("a"), noop("b", "a"), noop("c", "b")), CancelRun("not needed", "b"), done("a"))
    ended = spec.history[-1]
    assert isinstance(ended, RunEnded)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error["code"] == "cancelled"
    assert (ended.counts["blocked"], ended.counts["cancelled"], ended.counts["completed"]) == (1, 1, 1)


def test_a_cancelled_task_that_nobody_waited_for_leaves_a_success() -> None:
    spec = run().after(start(noop("a"), noop("b", "a")), CancelRun("not needed", "b"), done("a"))
    ended = spec.history[-1]
    assert isinstance(ended, RunEnded)
    assert ended.status == "completed"
