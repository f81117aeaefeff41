"""What a run says it spent is what its calls cost: failed ones too, refused and recorded ones not."""

import pytest

from contracts.llm import Usage
from contracts.run import CancelRun, LlmAnswered, LlmSettled, ResumeRun, TakeAnswer, TakeTime
from services.executor.replay import Replay
from services.executor.run.snapshot import dump, restore
from services.executor.views import view_of
from tests.support.spec import Spec
from tests.unit.executor.builders import agent, answer, run, start

CALL = "r1.a.1.llm-1"
STOPPED = {"class": "llm", "code": "timeout", "message": "m"}
REFUSED = {"class": "llm", "code": "epic_budget_exceeded", "message": "m"}


def after(said: TakeAnswer) -> Spec:
    return run().after(start(agent("a"))).after(said)


def paid_calls(spec: Spec) -> int:
    replay = Replay("r1")
    replay.take(spec.history)
    return replay.audit().llm_calls_paid


@pytest.mark.parametrize(
    ("said", "tokens", "micros", "unknown", "paid"),
    [
        (answer(CALL, "done"), None, None, None, 1),
        (TakeAnswer(CALL, error=STOPPED, usage=Usage(3, 4, 7), cost_usd_micros=50), 7, 50, False, 1),
        (TakeAnswer(CALL, error=STOPPED, usage=Usage(3, 4, 7)), 7, 0, True, 1),
        (TakeAnswer(CALL, error=REFUSED), 0, 0, False, 0),
        (TakeAnswer(CALL, "done", usage=Usage(3, 4, 7), cost_usd_micros=0, cached=True), 0, 0, False, 0),
    ],
)
def test_each_outcome_counts_as_it_was_paid(said, tokens, micros, unknown, paid):
    spec = after(said)
    (answered,) = (event for event in spec.history if isinstance(event, LlmAnswered))
    assert answered.cached == said.cached
    view = view_of(spec.state, 1)
    if tokens is not None:
        assert (view.tokens, view.cost_usd_micros, view.cost_unknown) == (tokens, micros, unknown)
        (task,) = view.tasks
        assert (task.tokens, task.cost_usd_micros, task.cost_unknown) == (tokens, micros, unknown)
    assert paid_calls(spec) == paid


LATE = TakeAnswer(CALL, error=STOPPED, usage=Usage(3, 4, 7), cost_usd_micros=50)


def spent(spec: Spec) -> tuple[int, int, bool]:
    view = view_of(spec.state, 1)
    (task,) = view.tasks
    said = (task.tokens, task.cost_usd_micros, task.cost_unknown)
    assert (view.tokens, view.cost_usd_micros, view.cost_unknown) == said
    return said


@pytest.mark.parametrize(
    ("said", "settled", "sums"),
    [
        (LATE, LlmSettled("a", CALL, "", Usage(3, 4, 7), 50), (7, 50, False)),
        (
            TakeAnswer(CALL, error=STOPPED, usage=Usage(3, 4, 7)),
            LlmSettled("a", CALL, "", Usage(3, 4, 7)),
            (7, 0, True),
        ),
        (TakeAnswer(CALL, error=REFUSED), LlmSettled("a", CALL), (0, 0, False)),
        (TakeAnswer(CALL, "late", model_used="m", cached=True), LlmSettled("a", CALL, "m"), (0, 0, False)),
        (
            TakeAnswer(CALL, "late", model_used="m", usage=Usage(3, 4, 7), cost_usd_micros=9),
            LlmSettled("a", CALL, "m", Usage(3, 4, 7), 9),
            (7, 9, False),
        ),
    ],
)
def test_a_call_that_a_cancelled_run_let_go_counts_when_it_is_over(said, settled, sums):
    spec = run().after(start(agent("a")), CancelRun("enough"))
    assert spec.state.status == "cancelled"
    spec.when(said).then(settled)
    assert (spec.state.status, spent(spec)) == ("cancelled", sums)
    spec.when(said).then_nothing()
    replay = Replay("r1")
    replay.take(spec.history)
    report = replay.report(None, 1.0)
    assert report.equal, "the digest is that of the end, whatever ended later"
    assert replay.audit().llm_calls_paid == (1 if said.usage is not None else 0)


def test_a_call_that_timed_out_counts_for_its_task_and_for_the_run_that_goes_on():
    spec = run().after(start(agent("a"), agent("b"))).after(answer("r1.b.1.llm-1"))
    before = spec.state.tokens
    call = spec.state.calls[CALL]
    latest = call.last_deadline_at_ms
    spec.at(call.deadline_at_ms).after(TakeTime()).at(latest).after(TakeTime())
    assert spec.state.status == "failed"
    spec.after(LATE)
    assert (spec.state.tokens, spec.state.tasks["a"].tokens) == (before + 7, 7)


def test_what_was_let_go_is_remembered_by_a_snapshot_and_over_a_resume():
    spec = run().after(start(agent("a")), CancelRun("enough"), ResumeRun())
    restored = restore(dump(spec.state))
    assert list(restored.let_go) == [CALL]
    assert restored.let_go[CALL] is restored.tasks["a"]
    spec.when(LATE).then(LlmSettled("a", CALL, "", Usage(3, 4, 7), 50))
    assert spec.state.let_go == {}
    spec.after(answer("r1.a.2.llm-1"))
    assert spec.state.tasks["a"].cost_usd_micros == 50 + next(
        event.cost_usd_micros or 0 for event in spec.history if isinstance(event, LlmAnswered)
    )
