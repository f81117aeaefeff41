"""A question that a frozen process has taken is put to another one."""

import asyncio
import time

import pytest

from contracts.errors import Rejected
from services.console import asking
from services.console.asking import first_answer


async def _never() -> str:
    await asyncio.Event().wait()
    return ""


async def _at_once() -> str:
    return "here"


async def test_a_silent_process_costs_a_moment_and_no_more():
    answers = iter([_never(), _at_once()])
    began_s = time.monotonic()
    assert await first_answer(lambda: next(answers)) == ("here", True)
    assert time.monotonic() - began_s < asking.MOMENT_S * 3


async def test_who_answers_at_once_is_asked_once():
    answers = iter([_at_once()])
    assert await first_answer(lambda: next(answers)) == ("here", False)


async def test_when_nobody_answers_the_deadline_of_a_question_ends_it(monkeypatch):
    monkeypatch.setattr(asking, "MOMENT_S", 0.01)
    asked = 0

    async def until_its_deadline() -> str:
        nonlocal asked
        asked += 1
        try:
            async with asyncio.timeout(0.3):
                return await _never()
        except TimeoutError:
            raise Rejected("service_unavailable") from None

    with pytest.raises(Rejected):
        await first_answer(until_its_deadline)
    assert asked == asking.TRIES_MAX
