"""What the actor hosts see, as metrics and log lines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.approval import ApprovalDenied, ApprovalExpired, ApprovalGranted, ApprovalStale, ApprovalWithdrawn
from contracts.errors import Rejected
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics

_OUTCOMES: Mapping[type[Any], str] = {
    ApprovalGranted: "granted",
    ApprovalDenied: "denied",
    ApprovalExpired: "expired",
    ApprovalStale: "stale",
    ApprovalWithdrawn: "withdrawn",
}


class CommitObserver:
    """See services.runtime.ports.Observer. One per aggregate; `tags` names its event types."""

    def __init__(self, aggregate: str, stream: str, tags: Mapping[type[Any], str], metrics: Metrics, log: Log) -> None:
        self._aggregate, self._stream, self._tags, self._metrics, self._log = aggregate, stream, tags, metrics, log

    def committed(self, events: Sequence[Any], seconds: float) -> None:
        """A commit was acknowledged."""
        self._metrics.inc("htdag_commits_total", stream=self._stream, outcome="stored")
        self._metrics.observe("htdag_commit_seconds", seconds, stream=self._stream)
        for kind, count in Counter(map(type, events)).items():
            self._metrics.inc("htdag_events_appended_total", count, stream=self._stream, type=self._tags[kind])
            if kind in _OUTCOMES:
                self._metrics.inc("htdag_approvals_total", count, outcome=_OUTCOMES[kind])

    def conflict(self) -> None:
        """Somebody else wrote first."""
        self._metrics.inc("htdag_commits_total", stream=self._stream, outcome="conflict")
        self._metrics.inc("htdag_actor_conflicts_total", aggregate=self._aggregate)

    def failed(self, actor_id: str, error: BaseException) -> None:
        """A turn broke. A refusal of the broker is no bug and needs no trace."""
        self._metrics.inc("htdag_commits_total", stream=self._stream, outcome="failed")
        if isinstance(error, Rejected):
            self._log.warning("turn_failed", aggregate=self._aggregate, id=actor_id, code=error.code)
        else:
            self._log.error("turn_failed", aggregate=self._aggregate, id=actor_id, exc_info=error)
