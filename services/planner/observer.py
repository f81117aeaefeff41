"""What the actor hosts see, as metrics and log lines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.errors import Rejected
from contracts.streams import EVENTS_PLANNER
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics


class CommitObserver:
    """See services.runtime.ports.Observer. One per aggregate; `tags` names its event types."""

    def __init__(self, aggregate: str, tags: Mapping[type[Any], str], metrics: Metrics, log: Log) -> None:
        self._aggregate, self._tags, self._metrics, self._log = aggregate, tags, metrics, log

    def committed(self, events: Sequence[Any], seconds: float) -> None:
        """A commit was acknowledged."""
        self._metrics.inc("htdag_commits_total", stream=EVENTS_PLANNER, outcome="stored")
        self._metrics.observe("htdag_commit_seconds", seconds, stream=EVENTS_PLANNER)
        for kind, count in Counter(map(type, events)).items():
            self._metrics.inc("htdag_events_appended_total", count, stream=EVENTS_PLANNER, type=self._tags[kind])

    def conflict(self) -> None:
        """Somebody else wrote first."""
        self._metrics.inc("htdag_commits_total", stream=EVENTS_PLANNER, outcome="conflict")
        self._metrics.inc("htdag_actor_conflicts_total", aggregate=self._aggregate)

    def failed(self, actor_id: str, error: BaseException) -> None:
        """A turn broke. A refusal of the broker is no bug and needs no trace."""
        self._metrics.inc("htdag_commits_total", stream=EVENTS_PLANNER, outcome="failed")
        if isinstance(error, Rejected):
            self._log.warning("turn_failed", aggregate=self._aggregate, id=actor_id, code=error.code)
        else:
            self._log.error("turn_failed", aggregate=self._aggregate, id=actor_id, exc_info=error)
