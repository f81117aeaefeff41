"""Replay: the stored log folded by today's code, compared with what was recorded. Pure; it calls nobody."""

from collections.abc import Sequence

from contracts.run import LlmAnswered, LlmSettled, RunEnded, RunEvent, TaskCompleted, TaskStarted
from contracts.run_proofs import ReplayReport, RunAudit
from contracts.run_tools import ToolAnswered
from services.executor.run.decider import RUN
from services.executor.run.evolve import TAKERS
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
        self.tools: list[tuple[str, int, int]] = []
        self._reached = ""
        self._completed: set[str] = set()
        self._completed_again: set[str] = set()

    def take(self, events: Sequence[RunEvent]) -> None:
        """Fold one commit."""
        run, tasks, completed = self.run, self.run.tasks, self._completed
        for event in events:
            kind = type(event)
            if kind is TaskStarted:
                # The plan itself, not the counters that today's code keeps of it.
                if not completed.issuperset(tasks[event.task_id].spec.depends_on):  # type: ignore[union-attr]
                    self.order_ok = False
            elif kind is TaskCompleted:
                task_id = event.task_id  # type: ignore[union-attr]
                if task_id in completed:
                    self._completed_again.add(task_id)
                completed.add(task_id)
            elif kind in (LlmAnswered, LlmSettled):
                if event.paid:  # type: ignore[union-attr]
                    self.paid.append(event.corr_id)  # type: ignore[union-attr]
            elif kind is ToolAnswered:
                self.tools.append((event.task_id, event.attempt, event.call))  # type: ignore[union-attr]
            TAKERS[kind](run, event)
            if kind is RunEnded:
                self._reached = digest(run)
        self.events += len(events)
        self.commits += 1

    @property
    def completed_twice(self) -> int:
        """Tasks that the log says completed more than once."""
        return len(self._completed_again)

    def report(self, live_digest: str | None, seconds: float) -> ReplayReport:
        """What was found. A run that goes on has no recorded digest yet and is compared with the live state."""
        recorded = self.run.recorded_digest
        # What was recorded at the end of a run holds nothing of the calls that were let go and ended later.
        reached = self._reached if recorded else digest(self.run)
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
            tools_run_twice=len(self.tools) - len(set(self.tools)),
            open_waits=sum(1 for _ in waits_of(self.run)),
            tool_calls=len(self.tools),
        )
