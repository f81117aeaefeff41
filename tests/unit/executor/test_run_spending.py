"""What a run says it spent is what its calls cost: failed ones too, refused and recorded ones not."""

import pytest

from contracts.llm import Usage
from contracts.run import LlmAnswered, TakeAnswer
from services.executor.replay import Replay
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
