"""Who is alive, by the beats of all workers and by what they answer to the roll."""

import msgspec

from contracts.limits import GONE_REMEMBERED_S
from contracts.llm import LlmHealth
from contracts.subjects import LLM_ROLL
from services.llm_worker.health import Status
from services.llm_worker.registry import Registry, Roll
from services.llm_worker.roll_call import call_the_roll
from services.runtime.bus import Bus, Message
from services.runtime.clock import FixedClock, rfc3339


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
    assert registry.expected() == {"killed"}
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


def said(worker: str, clock: FixedClock, status: Status = "up", in_flight: int = 7) -> LlmHealth:
    """What a worker answers to the roll."""
    return LlmHealth(worker, rfc3339(clock.now_ms()), status, ["mock"], in_flight)


def test_all_say_the_same_of_a_killed_worker_whoever_called_the_roll_last(clock: FixedClock):
    """One heard the beat only, one called the roll just before the end, one came after it."""
    heard, asked, came_later = (Registry(clock=clock, every_s=30.0) for _ in range(3))
    for registry in (heard, asked):
        registry.take(beat("k"))
    stored = kept("k", 0, clock)
    clock.advance(25_000)
    asked.meet(said("k", clock))
    came_later.recall(stored)
    came_later.meet(said("k", clock))
    clock.advance(64_999)
    assert [statuses(registry)["k"] for registry in (heard, asked, came_later)] == ["up"] * 3
    clock.advance(1)
    assert [statuses(registry)["k"] for registry in (heard, asked, came_later)] == ["dead"] * 3
    assert [registry.expected() for registry in (heard, asked, came_later)] == [set()] * 3


def test_whoever_answers_this_very_roll_is_as_it_says_and_never_dead(clock: FixedClock):
    registry = Registry(clock=clock, every_s=30.0)
    for worker in ("lives", "silent", "leaves"):
        registry.take(beat(worker))
    clock.advance(20_000)
    answers = {"lives": said("lives", clock), "leaves": said("leaves", clock, "draining", 1)}
    views = {view.worker_id: view for view in registry.views(Roll(answers, {"silent"}))}
    assert {name: (one.status, one.in_flight, one.silent) for name, one in views.items()} == {
        "lives": ("up", 7, False), "leaves": ("draining", 1, False), "silent": ("up", 3, True),
    }  # fmt: skip
    assert {one.last_beat_at for one in views.values()} == {"2026-11-20T17:00:00.000Z"}
    clock.advance(100_000)
    views = {view.worker_id: view for view in registry.views(Roll({"lives": said("lives", clock)}, ()))}
    assert {name: (one.status, one.in_flight) for name, one in views.items()} == {
        "lives": ("up", 7), "leaves": ("dead", 0), "silent": ("dead", 0),
    }  # fmt: skip


def test_who_is_known_by_an_answer_alone_counts_from_there(clock: FixedClock):
    registry = Registry(clock=clock, every_s=30.0)
    registry.meet(said("new", clock))
    clock.advance(89_999)
    assert statuses(registry) == {"new": "up"}
    clock.advance(1)
    assert statuses(registry) == {"new": "dead"}


async def test_the_roll_tells_who_answered_and_who_should_have(bus: Bus, clock: FixedClock):
    registry = Registry(clock=clock, every_s=30.0)
    for worker in ("a", "killed"):
        registry.take(beat(worker))
    registry.take(beat("gone", "down"))

    def answer(message: Message) -> None:
        for worker in ("a", "b"):
            bus.publish(message.reply, msgspec.json.encode(said(worker, clock)))
        bus.publish(message.reply, b"no beat")

    await bus.subscribe(LLM_ROLL, answer)
    roll = await call_the_roll(bus, registry)
    assert (set(roll.answers), roll.silent) == ({"a", "b"}, {"killed"})
    assert {view.worker_id: view.silent for view in registry.views(roll)} == {
        "a": False, "b": False, "killed": True, "gone": False,
    }  # fmt: skip
    clock.advance(90_000)
    roll = await call_the_roll(bus, registry)
    assert (set(roll.answers), roll.silent) == ({"a", "b"}, ())
    assert {view.worker_id: view.status for view in registry.views(roll)} == {
        "a": "up", "b": "up", "killed": "dead", "gone": "down",
    }  # fmt: skip
