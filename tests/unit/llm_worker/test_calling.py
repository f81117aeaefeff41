"""How long a call waits for a place."""

import pytest

from contracts.llm import LlmInput, LlmParams, LlmRequest
from services.llm_worker.calling import patience_s
from services.llm_worker.config import ModelConfig
from services.llm_worker.flight import Flight, Waiter
from services.llm_worker.journal import Key
from services.llm_worker.models import Resolved

NOW_MS = 1_790_000_000_000


def flight(answer_to: str, left_s: float | None) -> Flight:
    request = LlmRequest(LlmInput([]), params=LlmParams(timeout_ms=30_000))
    deadline_at_ms = 0 if left_s is None else NOW_MS + int(left_s * 1000)
    waiter = Waiter(None, "", answer_to, deadline_at_ms)  # type: ignore[arg-type]  # nobody settles it here
    return Flight(Key("r", "n", "c"), request, Resolved("m", "m", ModelConfig(provider="mock")), waiter)


@pytest.mark.parametrize(
    ("answer_to", "left_s", "wait_s"),
    [
        ("", None, 600),  # a caller outside says itself when it gives up
        ("mailbox", None, 35),
        ("mailbox", 155, 120),  # the run allows for a queue: then the call still has its whole time
        ("mailbox", 35, 34),  # it does not: the run hears in time that the model is overloaded
        ("mailbox", 0.5, 0),
        ("mailbox", 10_000, 600),
    ],
)
def test_a_run_hears_of_an_overloaded_model_before_it_gives_up(answer_to, left_s, wait_s):
    assert patience_s(flight(answer_to, left_s), 600.0, NOW_MS) == pytest.approx(wait_s)
