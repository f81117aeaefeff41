"""Replay: the stored log folded by today's code, compared with what was recorded. Pure; it calls nobody."""

from collections import Counter
from collections.abc import Iterable, Sequence

from contracts.run import (
    LlmAnswered,
    ReplayReport,
    RunAudit,
    RunEvent,
    TaskCompleted,
    TasksAdded,
    TaskStarted,
)
from services.executor.run.decider import RUN
from services.executor.run.state import Run, digest
from services.executor.views import status_of, waits_of


class Replay:
    """Takes a run's commits in, one by one, and watches what must hold in every history."""

    def __init__(self, run_id: str) -> None:
        self.run: Run = RUN.initial(run_id)
        self.events = 0
        self.commits = 0
        self.order_ok = True
        self.paid: list[str] = []
        self._needs: dict[str, Sequence[str]] = {}
        self._completed: Counter[str] = Counter()

    def take(self, events: Iterable[RunEvent]) -> None:
        """Fold one commit."""
        evolve, run = RUN.evolve, self.run
        count = 0
        for event in events:
            count += 1
            kind = type(event)
            if kind is TaskStarted:
                self._see_start(event)  # type: ignore[arg-type]
            elif kind is TaskCompleted:
                self._completed[event.task_id] += 1  # type: ignore[union-attr]
            elif kind is TasksAdded:
                self._needs.update((spec.id, spec.depends_on) for spec in event.tasks)  # type: ignore[union-attr]
            elif kind is LlmAnswered:
                self.paid.append(event.corr_id)  # type: ignore[union-attr]
            evolve(run, event)
        self.events += count
        self.commits += 1

    def _see_start(self, event: TaskStarted) -> None:
        completed = self._completed
        for needed in self._needs.get(event.task_id, ()):
            if needed not in completed:
                self.order_ok = False

    @property
    def completed_twice(self) -> int:
        """Tasks that the log says completed more than once."""
        return sum(count > 1 for count in self._completed.values())

    def report(self, live_digest: str | None, seconds: float) -> ReplayReport:
        """What was found. A run that goes on has no recorded digest yet and is compared with the live state."""
        reached = digest(self.run)
        recorded = self.run.recorded_digest
        return ReplayReport(
            run_id=self.run.run_id,
            events=self.events,
            commits=self.commits,
            llm_calls=0,
            digest=reached,
            recorded_digest=recorded,
            equal=reached == (recorded or live_digest),
            status=status_of(self.run),
            order_ok=self.order_ok and not self.completed_twice,
            events_per_s=round(self.events / seconds) if seconds > 0 else 0.0,
        )

    def audit(self) -> RunAudit:
        """Proof for the run: what was paid, twice or not, what still waits."""
        status_of(self.run)
        return RunAudit(
            run_id=self.run.run_id,
            llm_calls_paid=len(self.paid),
            llm_calls_distinct=len(set(self.paid)),
            duplicates=len(self.paid) - len(set(self.paid)),
            tasks_completed_twice=self.completed_twice,
            tools_run_twice=0,
            open_waits=sum(1 for _ in waits_of(self.run)),
        )
