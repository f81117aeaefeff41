"""The policy aggregate: its versions, one after the other. Texts were parsed before a command comes here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from contracts.policy import PolicyEvent, PolicyStored
from services.runtime.decider import Decider


@dataclass(frozen=True, slots=True)
class PutPolicy:
    """Put this text in force; `digest` identifies what it says."""

    text: str
    digest: str


@dataclass(slots=True)
class Policy:
    """The newest version; None when only the shipped one ever was in force."""

    stored: PolicyStored | None = None


def decide(command: PutPolicy, state: Policy, _now_ms: int) -> Sequence[PolicyEvent]:
    """A text that says the same as the one in force changes nothing."""
    version = state.stored.version if state.stored else 0
    if state.stored and state.stored.digest == command.digest:
        return ()
    return (PolicyStored(version=version + 1, digest=command.digest, text=command.text),)


def evolve(state: Policy, event: PolicyEvent) -> Policy:
    """Take a fact in."""
    state.stored = event
    return state


POLICY: Final[Decider[PutPolicy, Policy, PolicyEvent]] = Decider(
    initial=lambda _: Policy(), decide=decide, evolve=evolve, is_terminal=lambda _: False
)
