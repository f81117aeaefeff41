"""Silence is proof of death only after a while."""

import msgspec

from contracts.llm import LlmHealth
from services.executor import llm_health
from services.executor.llm_health import SILENCE_S, LlmWatch


def beat(worker: str, status: str = "up") -> bytes:
    return msgspec.json.encode(LlmHealth(worker, "2026-11-20T00:00:00Z", status, [], 0))  # type: ignore[arg-type]


def test_a_watch_that_just_began_does_not_know_better():
    watch = LlmWatch(0.0)
    assert watch.alive(SILENCE_S - 1)
    assert not watch.alive(SILENCE_S)


def test_a_worker_that_beats_is_alive_until_it_falls_silent():
    watch = LlmWatch(0.0)
    watch.take(beat("w"), 1000.0)
    assert watch.alive(1000.0 + SILENCE_S)
    assert not watch.alive(1001.0 + SILENCE_S)


def test_a_worker_that_says_goodbye_is_gone_at_once():
    watch = LlmWatch(0.0)
    watch.take(beat("w"), 1000.0)
    watch.take(beat("v", "draining"), 1000.0)
    watch.take(beat("w", "down"), 1001.0)
    assert watch.alive(1001.0)
    watch.take(beat("v", "down"), 1001.0)
    assert not watch.alive(1001.0)


def test_nonsense_is_no_heartbeat():
    watch = LlmWatch(0.0)
    watch.take(b"{}", 1000.0)
    watch.take(b"\xff", 1000.0)
    assert not watch.alive(1000.0)


def test_a_flood_of_strange_workers_is_forgotten(monkeypatch):
    monkeypatch.setattr(llm_health, "WORKERS_REMEMBERED_MAX", 3)
    watch = LlmWatch(0.0)
    for number in range(10):
        watch.take(beat(f"w{number}"), float(number))
    assert len(watch._heard) == 3
    assert watch.alive(9.0 + SILENCE_S)
