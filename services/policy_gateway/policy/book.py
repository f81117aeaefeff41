"""The policy in force, in memory: the same in every gateway as soon as the broker delivers it, without a restart."""

from collections.abc import Callable
from typing import Final, NamedTuple

from contracts.codec import CommitCodec, Undecodable
from contracts.errors import Rejected
from contracts.policy import POLICY_ID, PolicyEvent, PolicyStored
from contracts.subjects import events as event_subject
from services.policy_gateway.decision.roles import Roles, parse_roles
from services.runtime.event_store import Recorded
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics

POLICY_SUBJECT: Final = event_subject("policy-gateway", "policy", POLICY_ID)
POLICY_CODEC: Final[CommitCodec[PolicyEvent]] = CommitCodec(PolicyStored)


class Version(NamedTuple):
    """One version of the policy: 0 is the shipped one."""

    number: int
    digest: str
    text: str
    roles: Roles


class PolicyBook:
    """Knows the version in force; `parse` reads the text of a policy."""

    def __init__(
        self, *, shipped: str, parse: Callable[[str], Roles] = parse_roles, metrics: Metrics, log: Log
    ) -> None:
        self._parse, self._metrics, self._log = parse, metrics, log
        roles = parse(shipped)
        self._current = Version(0, roles.digest, shipped, roles)
        self._unreadable = 0

    @property
    def current(self) -> Version:
        """The version in force."""
        return self._current

    def not_ready(self) -> str | None:
        """Why this gateway judges by an old policy; None when it does not."""
        return f"version {self._unreadable} of the policy cannot be read here" if self._unreadable else None

    def take(self, record: Recorded) -> None:
        """Take in one stored commit."""
        try:
            events = POLICY_CODEC.decode(record.data, skip_unknown=True).events
        except Undecodable as error:
            self._log.error("policy_unreadable", seq=record.seq, reason=str(error)[:500])
            return
        for event in events:
            self.replace(event)

    def replace(self, stored: PolicyStored) -> None:
        """Put a stored version in force, unless a newer one is."""
        if stored.version <= max(self._current.number, self._unreadable):
            return
        try:
            roles = self._parse(stored.text)
        except Rejected as error:
            # Another version of this program could read it: judging goes on by the last one that is understood here.
            self._unreadable = stored.version
            self._log.error("policy_unreadable", version=stored.version, reason=error.message)
            return
        self._unreadable = 0
        self._current = Version(stored.version, stored.digest, stored.text, roles)
        self._metrics.set("htdag_policy_version", stored.version)
        self._log.info("policy_in_force", version=stored.version, digest=stored.digest)
