"""Strategy commands and what they lead to. Scripts were compiled and patterns checked before a command comes here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, assert_never

import msgspec

from contracts.errors import Rejected
from contracts.strategy import StrategyActivated, StrategyBody, StrategyDeactivated, StrategyEvent, StrategyPut
from services.planner.strategy.state import ROLLBACK, Strategy, evolve
from services.runtime.decider import Decider

VERSIONS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class PutStrategy:
    """Store what differs from the version before as a new version and make it active. None and left out: as before."""

    name: str
    scripts: dict[str, str]
    pattern: str | None = None
    priority: int | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class SeedStrategy:
    """Store version 1, unless this strategy was ever stored."""

    name: str
    body: StrategyBody


@dataclass(frozen=True, slots=True)
class ActivateStrategy:
    """Make a stored version active; the newest when `version` is None."""

    name: str
    version: int | None


@dataclass(frozen=True, slots=True)
class RollBackStrategy:
    """Make the version active that was before this one; none when there was none."""

    name: str


StrategyCommand = PutStrategy | SeedStrategy | ActivateStrategy | RollBackStrategy


def digest_of(body: StrategyBody) -> str:
    """Identifies the content of a version: the same content, the same digest."""
    content = msgspec.structs.asdict(body)  # every field: whether a default is left out depends on object identity
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def merged(command: PutStrategy, before: StrategyBody | None) -> StrategyBody:
    """The body that a put leads to: what it says, over the version before."""
    base = before or StrategyBody(scripts={})
    return StrategyBody(
        scripts={**base.scripts, **command.scripts},
        pattern=base.pattern if command.pattern is None else command.pattern,
        priority=base.priority if command.priority is None else command.priority,
        description=base.description if command.description is None else command.description,
    )


def decide(command: StrategyCommand, state: Strategy, _now_ms: int) -> Sequence[StrategyEvent]:
    """Judge a wish against the facts."""
    match command:
        case PutStrategy():
            return _put(command, state)
        case SeedStrategy():
            return () if state.versions else (_version(state, command.body),)
        case ActivateStrategy():
            return _activate(command, state)
        case RollBackStrategy():
            return _roll_back(state)
        case _:
            assert_never(command)


def _put(command: PutStrategy, state: Strategy) -> Sequence[StrategyEvent]:
    before = state.versions.get(state.active or state.latest)
    body = merged(command, before.body if before else None)
    if not body.scripts:
        raise Rejected("bad_request", "a strategy needs at least one script", field="scripts")
    if state.active and before is not None and before.digest == digest_of(body):
        return ()
    if state.latest >= VERSIONS_MAX:
        raise Rejected("too_large", f"{state.name} has {VERSIONS_MAX} versions", max=VERSIONS_MAX)
    return (_version(state, body),)


def _version(state: Strategy, body: StrategyBody) -> StrategyPut:
    return StrategyPut(name=state.name, version=state.latest + 1, body=body, digest=digest_of(body))


def _activate(command: ActivateStrategy, state: Strategy) -> Sequence[StrategyEvent]:
    version = state.latest if command.version is None else command.version
    if version not in state.versions:
        raise not_found(state.name, version)
    if version == state.active:
        return ()
    return (StrategyActivated(name=state.name, version=version, reason="activate"),)


def _roll_back(state: Strategy) -> Sequence[StrategyEvent]:
    if not state.versions:
        raise not_found(state.name, None)
    if not state.active:
        raise Rejected(
            "conflict",
            f"no version of {state.name} is active: there is nothing to go back from",
            name=state.name,
            versions=sorted(state.versions),
        )
    if len(state.trail) == 1:
        return (StrategyDeactivated(name=state.name, reason=ROLLBACK),)
    return (StrategyActivated(name=state.name, version=state.trail[-2], reason=ROLLBACK),)


def not_found(name: str, version: int | None) -> Rejected:
    """The refusal for a strategy or a version that is not stored."""
    label = name if not version else f"{name}@{version}"
    return Rejected("strategy_not_found", f"there is no strategy {label}", name=name, version=version)


STRATEGY: Final[Decider[StrategyCommand, Strategy, StrategyEvent]] = Decider(
    initial=Strategy,
    decide=decide,
    evolve=evolve,
    is_terminal=lambda _: False,
)
