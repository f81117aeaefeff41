"""All epics with their progress: a projection of the summaries that stand in the headers of epic and run commits."""

from typing import Any, Final, NamedTuple

import msgspec

from contracts.commit import HEADER_SUMMARY
from contracts.subjects import parse_events
from services.runtime.event_store import Recorded

RUNS_MAX: Final = 100_000
"""Runs whose numbers are held singly; older ones that are over stay in their epic's sum."""
RUNS_PER_EPIC_MAX: Final = 200
"""Of each epic's runs, so many of the newest are known by name."""


class EpicRow(msgspec.Struct, frozen=True):
    """An epic in the list."""

    title: str = ""
    description: str = ""
    priority: int = 5
    created_by: str = ""
    created_at_ms: int = 0
    runs: int = 0
    budget_usd_micros: int | None = None
    budget_tokens: int | None = None


class _RunRow(msgspec.Struct, frozen=True):
    epic_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0


class Progress(NamedTuple):
    """Tasks of all runs of an epic."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    def plus(self, row: _RunRow, sign: int) -> "Progress":
        """This progress with a run's numbers added or taken away."""
        return Progress(
            self.total + sign * row.total,
            self.completed + sign * row.completed,
            self.failed + sign * row.failed,
        )


class EpicList:
    """The projection. `take_epic` and `take_run` get every commit, headers only, in order."""

    def __init__(self) -> None:
        self._epics: dict[str, EpicRow] = {}
        self._epic_seqs: dict[str, int] = {}
        self._runs: dict[str, _RunRow] = {}
        self._progress: dict[str, Progress] = {}
        self._begun: dict[str, dict[str, None]] = {}

    def take_epic(self, record: Recorded) -> None:
        """A commit of an epic."""
        self.note(parse_events(record.subject).aggregate_id, _summary(record), record.seq)

    def note(self, epic_id: str, summary: Any, seq: int) -> None:
        """What an epic looks like behind `seq`; older news changes nothing."""
        if summary is not None and seq > self._epic_seqs.get(epic_id, 0):
            self._epics[epic_id] = msgspec.convert(summary, EpicRow)
            self._epic_seqs[epic_id] = seq

    def take_run(self, record: Recorded) -> None:
        """A commit of a run."""
        summary = _summary(record)
        if summary is None:
            return
        run_id = parse_events(record.subject).aggregate_id
        row = msgspec.convert(summary, _RunRow)
        before = self._runs.pop(run_id, None)
        if row.epic_id is None:
            return
        progress = self._progress.get(row.epic_id, Progress())
        if before is not None:
            progress = progress.plus(before, -1)
        self._progress[row.epic_id] = progress.plus(row, 1)
        self._runs[run_id] = row
        begun = self._begun.setdefault(row.epic_id, {})
        begun.setdefault(run_id)
        if len(begun) > RUNS_PER_EPIC_MAX:
            del begun[next(iter(begun))]
        while len(self._runs) > RUNS_MAX:
            del self._runs[next(iter(self._runs))]

    def epic_of(self, run_id: str) -> str | None:
        """The epic of a run that the executor has begun."""
        row = self._runs.get(run_id)
        return row.epic_id if row else None

    def runs(self, epic_id: str) -> list[str]:
        """The runs of an epic that the executor has begun, oldest first, whoever wished for them."""
        return list(self._begun.get(epic_id, ()))

    def progress(self, epic_id: str) -> Progress:
        """Tasks of the epic's runs by outcome."""
        return self._progress.get(epic_id, Progress())

    def page(self, limit: int, after: str | None) -> list[tuple[str, EpicRow]]:
        """Epics, newest first, behind the one called `after`."""
        rows = sorted(self._epics.items(), key=lambda item: (-item[1].created_at_ms, item[0]))
        start = 0
        if after is not None:
            start = next((place + 1 for place, (epic_id, _) in enumerate(rows) if epic_id == after), len(rows))
        return rows[start : start + limit]


def _summary(record: Recorded) -> Any:
    text = record.headers.get(HEADER_SUMMARY)
    return None if text is None else msgspec.json.decode(text)
