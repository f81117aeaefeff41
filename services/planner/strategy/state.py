"""A strategy as its events tell it."""

from dataclasses import dataclass, field
from typing import Final

from contracts.strategy import (
    STAGES,
    StrategyActivated,
    StrategyBody,
    StrategyDeactivated,
    StrategyEvent,
    StrategyPut,
    StrategyView,
)

TRAIL_MAX: Final = 100
ROLLBACK: Final = "rollback"
"""The reason of an activation that walks the trail back instead of adding to it."""


@dataclass(slots=True)
class Strategy:
    """All versions, and the trail of those that were active; the last of the trail is active now."""

    name: str
    versions: dict[int, StrategyPut] = field(default_factory=dict)
    trail: list[int] = field(default_factory=list)

    @property
    def active(self) -> int:
        """The active version; 0 when none is."""
        return self.trail[-1] if self.trail else 0

    @property
    def latest(self) -> int:
        """The newest stored version; 0 when there is none."""
        return len(self.versions)

    @property
    def body(self) -> StrategyBody | None:
        """The body of the active version."""
        put = self.versions.get(self.active)
        return put.body if put else None

    def copy(self) -> "Strategy":
        """A state of its own; the versions themselves never change and are shared."""
        return Strategy(self.name, dict(self.versions), list(self.trail))

    def view(self) -> StrategyView:
        """What a list shows; an inactive strategy shows its newest version's body and version 0.

        So does one whose active version stands in an event that this program could not read.
        """
        put = self.versions.get(self.active) or self.versions[max(self.versions)]
        return StrategyView(
            name=self.name,
            version=self.active,
            versions=sorted(self.versions),
            pattern=put.body.pattern,
            priority=put.body.priority,
            scripts=[stage for stage in STAGES if stage in put.body.scripts],
            description=put.body.description,
            digest=put.digest,
        )


def evolve(state: Strategy, event: StrategyEvent) -> Strategy:
    """Take a fact in."""
    match event:
        case StrategyPut():
            state.versions[event.version] = event
            _walk(state, event.version)
        case StrategyActivated(reason=reason) if reason == ROLLBACK and len(state.trail) > 1:
            state.trail.pop()
            state.trail[-1] = event.version
        case StrategyActivated():
            _walk(state, event.version)
        case StrategyDeactivated():
            state.trail.clear()
    return state


def _walk(state: Strategy, version: int) -> None:
    state.trail.append(version)
    del state.trail[:-TRAIL_MAX]
