"""Who is alive, by the beats of all workers."""

import asyncio
from typing import cast

import msgspec

from contracts.limits import GONE_REMEMBERED_S
from contracts.llm import LlmHealth
from contracts.subjects import LLM_HEALTH, LLM_ROLL, llm_worker
from services.llm_worker.health import Heart, Registry, Status
from services.llm_worker.load import Load
from services.runtime.bus import Bus, Message
from services.runtime.clock import FixedClock, rfc3339
from services.runtime.metrics import Metrics


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


def kept(worker: str, ago_s: float, clock: FixedClock, status: Status = "up") -> bytes:
    at = rfc3339(clock.now_ms() - int(ago_s * 1000))
    return msgspec.json.encode(LlmHealth(worker, at, status, ["mock"], 3))


def test_whoever_died_before_this_process_began_is_dead_for_it_too_from_its_last_beat_on(clock: FixedClock):
    registry = Registry(clock=clock, every_s=30.0)
    registry.recall(kept("killed", 80, clock))
    registry.recall(kept("dead", 100, clock))
    registry.recall(kept("gone", 10, clock, "down"))
    for nonsense in (b"", b'{"worker_id":1}', kept("x", 0, clock).replace(b"Z", b"?")):
        registry.recall(nonsense)
    assert [*statuses(registry).items()] == [("gone", "down"), ("killed", "up"), ("dead", "dead")]
    assert registry.silent_since(clock.monotonic_s()) == {"killed"}
    clock.advance(10_000)
    assert statuses(registry)["killed"] == "dead"
    clock.advance(GONE_REMEMBERED_S * 1000)
    assert statuses(registry) == {}


def test_what_was_heard_counts_more_than_what_was_kept_and_no_clock_ahead_makes_anybody_live_longer(clock: FixedClock):
    registry = Registry(clock=clock, every_s=30.0)
    registry.take(beat("a"))
    registry.recall(kept("a", 1_000, clock))
    registry.recall(kept("ahead", -5_000, clock))
    assert statuses(registry) == {"a": "up", "ahead": "up"}
    clock.advance(90_000)
    assert statuses(registry) == {"a": "dead", "ahead": "dead"}


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
