"""What a worker says of itself: by itself, and when the roll is called."""

import asyncio
from typing import cast

import msgspec

from contracts.subjects import LLM_HEALTH, LLM_ROLL, llm_worker
from services.llm_worker.health import Heart
from services.llm_worker.load import Load
from services.runtime.bus import Bus, Message
from services.runtime.clock import FixedClock
from services.runtime.metrics import Metrics


class Heard:
    """A bus that keeps what is said on it, and to whom."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def publish(self, subject: str, data: bytes) -> None:
        """Keep the subject and the status."""
        self.said.append((subject, msgspec.json.decode(data)["status"]))

    def store(self, subject: str, data: bytes, *, stream: str, msg_id: str) -> "asyncio.Future[None]":
        """Keep it likewise."""
        self.publish(subject, data)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stored.set_result(None)
        return stored


async def test_the_roll_is_answered_to_who_calls_it_and_never_with_up_after_a_goodbye(clock: FixedClock):
    bus = Heard()
    heart = Heart(
        bus=cast(Bus, bus),
        clock=clock,
        worker_id="w",
        models=[],
        in_flight=lambda: 0,
        load=Load(clock=clock, metrics=Metrics()),
        limited=lambda: 0,
        every_s=30.0,
        log=None,
    )
    roll = Message(LLM_ROLL, b"", {}, "_INBOX_llm-worker.x")
    heart.called(roll)
    heart.beat("down")
    heart.called(roll)
    kept = (llm_worker("w"), "down")
    inbox = "_INBOX_llm-worker.x"
    assert bus.said == [(inbox, "up"), (LLM_HEALTH, "down"), kept, (inbox, "down")]
