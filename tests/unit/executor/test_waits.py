"""What waits in all runs: the newest first, and only as much as an answer holds."""

from typing import Any

import msgspec
import pytest

from contracts.commit import HEADER_SUMMARY
from contracts.requests import RunWaits
from contracts.subjects import events
from services.executor import handlers
from services.executor.handlers import RunVerbs
from services.executor.run.state import Run
from services.runtime.clock import FixedClock
from services.runtime.memory import MemoryEventStore
from tests.unit.executor.builders import llm, run, start


class Runs:
    """A host with two open calls in each run; each look takes a second."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.seen: list[str] = []

    async def read(self, run_id: str) -> tuple[Run, int]:
        self.seen.append(run_id)
        self.clock.advance(1_000)
        return run(run_id).after(start(llm("a"), llm("b"), run_id=run_id)).state, 1


@pytest.mark.parametrize(("waits_max", "found", "looked_at"), [(3, 3, 2), (1_000, 10, 5)])
async def test_waits_of_many_runs_are_bounded_in_number_and_in_time(
    monkeypatch: pytest.MonkeyPatch, waits_max: int, found: int, looked_at: int
):
    monkeypatch.setattr(handlers, "WAITS_MAX", waits_max)
    clock, store = FixedClock(), MemoryEventStore()
    for number in range(9):
        summary = {HEADER_SUMMARY: msgspec.json.encode({"status": "running"}).decode()}
        await store.append(
            events("executor", "run", f"r{number}"), [b"{}"], expect=0, msg_id=str(number), headers=summary
        )
    host: Any = Runs(clock)
    nobody: Any = None
    verbs = RunVerbs(host=host, bus=nobody, store=store, codec=nobody, book=nobody, clock=clock, ids=nobody)
    assert len(await verbs.waits(RunWaits(), nobody)) == found
    assert host.seen == [f"r{number}" for number in range(8, 8 - looked_at, -1)]
