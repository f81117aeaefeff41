"""Who is alive, by the beats of all workers."""

import msgspec

from contracts.llm import LlmHealth
from services.llm_worker.health import Registry, Status
from services.runtime.bus import Message
from services.runtime.clock import FixedClock


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
