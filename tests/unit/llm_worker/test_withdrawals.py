"""The wish that a call be stopped is said again, to whichever worker has it later."""

from typing import Any

import pytest
import structlog

from contracts.subjects import LLM_CANCEL
from services.llm_worker import withdrawals
from services.llm_worker.withdrawals import Withdrawals
from tests.support.eventually import eventually


class Said:
    """A bus that only takes down what is published."""

    def __init__(self) -> None:
        self.wishes: list[bytes] = []

    def publish(self, subject: str, data: bytes) -> None:
        assert subject == LLM_CANCEL
        self.wishes.append(data)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.setattr(withdrawals, "EVERY_S", 0.0)
    monkeypatch.setattr(withdrawals, "TIMES", 3)
    return Said()


async def test_a_wish_is_said_again_and_then_no_more(said: Said) -> None:
    bus: Any = said
    again = Withdrawals(bus, structlog.get_logger())
    again.say_again(b"c")
    await eventually(lambda: len(said.wishes) == 3)
    await again.close()
    assert said.wishes == [b"c"] * 3


async def test_more_wishes_than_may_be_said_again_are_said_once(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "UNDER_WAY_MAX", 1)
    bus: Any = said
    again = Withdrawals(bus, structlog.get_logger())
    again.say_again(b"first")
    again.say_again(b"second")
    await eventually(lambda: len(said.wishes) == 3)
    await again.close()
    assert said.wishes == [b"first"] * 3
