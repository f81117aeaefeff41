"""How long a call waits for a place, and for a limit."""

import asyncio
from types import SimpleNamespace

import pytest

from contracts.llm import LlmInput, LlmParams, LlmRequest
from services.llm_worker.config import ModelConfig
from services.llm_worker.flight import Flight, Waiter
from services.llm_worker.journal import Key
from services.llm_worker.models import Resolved
from services.llm_worker.patience import patience_s, reserved_until_s

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


@pytest.mark.parametrize(("reply", "left_s"), [("_INBOX.x", 18), ("", 30)])
async def test_who_asks_at_an_inbox_waits_for_a_limit_from_when_the_request_was_stored(reply, left_s):
    asked = flight("", None)
    stored = SimpleNamespace(stored_at_ms=NOW_MS - 12_000)
    asked.waiters = [Waiter(stored, reply, "", 0)]  # type: ignore[arg-type]  # nobody settles it here
    now_s = asyncio.get_running_loop().time()
    assert reserved_until_s(asked, now_s + 600, NOW_MS) - now_s == pytest.approx(left_s, abs=1)
