"""What a run hears of its call: also what a call cost that failed, and that a recorded answer cost nothing."""

from typing import Any

import msgspec
import pytest

from contracts.llm import LlmAnswer, LlmError, Usage
from services.llm_worker.mailbox import take_of

USAGE = Usage(3, 4, 7)


def told(answer: LlmAnswer | LlmError) -> Any:
    return take_of("c", msgspec.json.encode(answer))


def test_an_answer_is_told_with_what_it_used_and_cost():
    answer = LlmAnswer("r", "n", "c", "m", "m", "hi", [], USAGE, 50, "stop", 1.0)
    heard = told(answer)
    assert (heard.output, heard.usage, heard.cost_usd_micros, heard.cached) == ("hi", USAGE, 50, False)
    assert told(msgspec.structs.replace(answer, cached=True, cost_usd_micros=0)).cached


def test_a_recorded_answer_is_not_free_when_the_call_was_begun_by_a_worker_that_died():
    recorded = {"cached": True, "cost_usd_micros": 40, "abandoned_tokens": 9, "abandoned_usd_micros": 40}
    answer = LlmAnswer("r", "n", "c", "m", "m", "hi", [], USAGE, 0, "stop", 1.0)
    heard = told(msgspec.structs.replace(answer, **recorded))
    assert (heard.cached, heard.cost_usd_micros) == (False, 40)


@pytest.mark.parametrize("cost", [50, None])
def test_a_call_that_was_stopped_in_the_middle_is_told_with_what_it_used(cost):
    error = {"code": "timeout", "usage": msgspec.to_builtins(USAGE), "usage_estimated": True, "cost_usd_micros": cost}
    heard = told(LlmError("r", "n", "c", "m", error))
    assert (heard.usage, heard.cost_usd_micros, heard.error["code"]) == (USAGE, cost, "timeout")


def test_a_call_that_was_refused_used_nothing():
    heard = told(LlmError("r", "n", "c", "m", {"code": "budget_exceeded", "needed": 1.0}))
    assert (heard.usage, heard.cost_usd_micros) == (None, None)
