"""What queries show of a run."""

import msgspec
import pytest

from contracts.errors import Rejected
from services.executor import views
from services.executor.prompts import CUT, RESULT_CHARS_MAX, RESULTS_CHARS_MAX, results_section, text_of
from tests.unit.executor.builders import STRATEGY, agent, answer, broke, done, group, llm, noop, run, start


def test_a_run_that_nobody_began_is_not_found():
    for show in (views.status_of, views.summary_of, views.graph_of, views.result_of_run):
        with pytest.raises(Rejected, match="run_not_found"):
            show(run().state)


def test_the_view_of_a_run_shows_states_counts_and_waits():
    spec = run().after(
        start(noop("a", title="First"), group("g", "a"), llm("x", parent="g"), agent("y", "x", parent="g"))
    )
    spec.after(done("a"))
    view = views.view_of(spec.state, 7)
    assert (view.status, view.last_seq) == ("running", 7)
    assert view.counts == {"total": 4, "completed": 1, "in_progress": 2, "pending": 1}
    assert [(wait.task_id, wait.kind) for wait in view.waits] == [("x", "llm"), ("g", "children")]
    assert all(wait.deadline_at_ms for wait in view.waits)
    assert {task.id: task.status for task in view.tasks} == views.graph_of(spec.state)


def test_waits_name_stage_body_and_retry():
    spec = run().after(start(agent("a"), noop("b"), agent("c"), strategy=STRATEGY))
    spec.after(broke("c", "strategy_not_found", step="spawn"))
    found = {(wait.task_id, wait.kind) for wait in views.waits_of(spec.state)}
    assert found == {("a", "lua:spawn"), ("b", "noop"), ("c", "retry")}


def test_the_result_of_a_run_holds_what_completed():
    spec = run().after(start(noop("a"), noop("b"), noop("c", "b")), done("a", value={"n": 1}), broke("b", "lua_error"))
    result = views.result_of_run(spec.state)
    assert (result.status, result.completed, result.failed) == ("failed", 1, 1)
    assert (result.results, result.mutations_proposed, result.mutations_applied) == ({"a": {"n": 1}}, [], [])
    assert {"mutations_proposed", "mutations_applied"} <= msgspec.to_builtins(result).keys()
    assert result.error["task_id"] == "b"


def test_the_digest_tells_runs_apart_and_nothing_else():
    spec = run().after(start(agent("a")))
    before = views.view_of(spec.state, 1).digest
    assert before == views.view_of(run().after(start(agent("a"))).state, 9).digest
    spec.after(answer("r1.a.1.llm-1"))
    view = views.view_of(spec.state, 2)
    assert view.digest != before
    assert view.digest == spec.state.recorded_digest


def test_results_in_a_prompt_are_bounded():
    section = results_section((f"t{n}", "", "x" * 30_000) for n in range(50))
    assert CUT in section
    assert len(section) < RESULTS_CHARS_MAX + 50 * 60
    assert results_section([("a", "t", None)]) == ""
    assert len(results_section([("a", "", "x" * 30_000)])) < RESULT_CHARS_MAX + 200


def test_results_are_shown_as_text():
    assert text_of("plain") == "plain"
    assert text_of({"output": "said", "agents": []}) == "said"
    assert text_of({"n": 1}) == '{"n":1}'
