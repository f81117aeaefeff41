"""Recorded histories of runs: today's code still folds each to the state it had, and finds the order sound.

A history is never changed. A new kind of event gets a new history beside these.
"""

from pathlib import Path

import pytest

from contracts.codec import CommitCodec
from contracts.run import RunEnded, RunEvent
from services.executor.replay import Replay
from services.executor.run.decider import RUN
from services.executor.run.effects import WithdrawApproval
from services.executor.views import task_view

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.jsonl"))
CODEC: CommitCodec[RunEvent] = CommitCodec(RunEvent)


def commits(path: Path) -> list[list[RunEvent]]:
    return [CODEC.decode(line).events for line in path.read_bytes().splitlines()]


def test_there_are_histories():
    assert len(HISTORIES) >= 7


@pytest.mark.law("I10")
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_history_folds_to_its_recorded_digest(path: Path):
    replay = Replay("r1")
    for events in commits(path):
        replay.take(events)
    report = replay.report(None, 1.0)
    assert report.recorded_digest is not None
    assert (report.equal, report.order_ok) == (True, True)
    ended = [event for events in commits(path) for event in events if isinstance(event, RunEnded)]
    assert (ended[-1].status, ended[-1].digest) == (report.status, report.digest)


@pytest.mark.law("I12")
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_history_cut_anywhere_can_be_taken_over(path: Path):
    """Whatever commit was the last one before a crash, what is open is asked for, and nothing else breaks."""
    history = commits(path)
    for length in range(1, len(history)):
        run = RUN.initial("r1")
        for events in history[:length]:
            for event in events:
                run = RUN.evolve(run, event)
        effects = RUN.recover(run)
        if RUN.is_terminal(run):
            assert all(isinstance(effect, WithdrawApproval) for effect in effects)
            continue
        waits = effects or run.retries or RUN.advance(run, run.deadline_at_ms - 1)
        assert waits, f"after commit {length} nobody works and nothing wakes the run"
        assert RUN.deadline_at_ms(run) is not None


def test_a_history_from_before_there_was_taint_tells_what_was_read():
    """Taint is folded from what calls asked for and gave, which every log holds."""
    replay = Replay("r1")
    for events in commits(Path(__file__).parent / "histories" / "tools_fallback.jsonl"):
        replay.take(events)
    impl, review = (task_view(replay.run.tasks[name]) for name in ("impl", "review"))
    assert [(one.tool, one.what) for one in impl.read if one.tool == "fs"] == [("fs", "/code/a")]
    assert "impl" in review.tainted_by
