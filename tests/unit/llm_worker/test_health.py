"""Who is alive, by the beats of all workers."""

from typing import cast

import msgspec

from contracts.llm import LlmHealth
from services.llm_worker.health import Heart, Registry, Status
from services.runtime.bus import Bus, Message
from services.runtime.clock import FixedClock
from tests.support.eventually import eventually


def beat(worker: str, status: Status = "up") -> Message:
    data = msgspec.json.encode(LlmHealth(worker, "2026-11-20T17:00:00.000Z", status, ["mock"], 3))
    return Message("llm.health", data, {}, "")


def statuses(registry: Registry) -> dict[str, str]:
    return {view.worker_id: view.status for view in registry.views()}


def test_a_silent_worker_is_dead_after_three_missed_beats_and_one_that_said_goodbye_is_down(clock: FixedClock):
    registry = Registry(clock=clock, every_s=30.0)
    for message in (beat("a"), beat("b"), beat("c", "down")):
        registry.take(message)
    clock.advance(89_999)
    assert statuses(registry) == {"a": "up", "b": "up", "c": "down"}
    registry.take(beat("b"))
    clock.advance(1)
    assert statuses(registry) == {"a": "dead", "b": "up", "c": "down"}
    registry.take(beat("a"))
    assert registry.views()[0].worker_id == "a"
    assert statuses(registry)["a"] == "up"


def test_what_is_no_beat_is_not_counted(clock: FixedClock):
    registry = Registry(clock=clock, every_s=30.0)
    for data in (b"", b"{}", b"[1]", b'{"worker_id":1}'):
        registry.take(Message("llm.health", data, {}, ""))
    assert registry.views() == []


class Heard:
    """A bus that keeps what is said on it."""

    def __init__(self) -> None:
        self.beats: list[str] = []

    def publish(self, _subject: str, data: bytes) -> None:
        """Keep the status."""
        self.beats.append(msgspec.json.decode(data)["status"])


def test_only_the_first_beat_of_a_worker_that_is_up_is_a_hello(clock: FixedClock):
    registry = Registry(clock=clock, every_s=30.0)
    hellos = [registry.take(message) for message in (beat("a"), beat("a"), beat("b", "down"), beat("c"))]
    assert hellos == [True, False, False, True]


async def test_a_crowd_of_newcomers_is_answered_with_one_beat_and_nobody_answers_after_the_goodbye(clock: FixedClock):
    bus = Heard()
    heart = Heart(bus=cast(Bus, bus), clock=clock, worker_id="w", models=[], in_flight=lambda: 0, every_s=30.0)
    for _ in range(5):
        heart.answer()
    await eventually(lambda: bus.beats)
    heart.answer()
    heart.beat("down")
    await eventually(lambda: heart._answering is None)
    assert bus.beats == ["up", "down"]
