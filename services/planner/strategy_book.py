"""Every strategy as it stands now, in memory: a projection of the strategy events, the same in every planner.

A change made by any planner is here as soon as the broker delivers it; one made by this planner before it answers.
"""

from typing import Final, NamedTuple

from contracts.codec import CommitCodec
from contracts.errors import Rejected
from contracts.strategy import NO_STRATEGY, StrategyBody, StrategyEvent, StrategyPut, StrategyView
from contracts.subjects import parse_events
from services.planner.pattern import Pattern
from services.planner.strategy.decider import not_found
from services.planner.strategy.state import Strategy, evolve
from services.runtime.event_store import Recorded

STRATEGIES_MAX: Final = 500
STRATEGY_CODEC: Final[CommitCodec[StrategyEvent]] = CommitCodec(StrategyEvent)


class Choice(NamedTuple):
    """A strategy at one version; `label` is what a run remembers: `name@version`."""

    label: str
    body: StrategyBody


class _Candidate(NamedTuple):
    priority: int
    name: str
    pattern: Pattern
    choice: Choice


class StrategyBook:
    """Looks strategies up and chooses among the active ones."""

    def __init__(self) -> None:
        self._strategies: dict[str, Strategy] = {}
        self._seqs: dict[str, int] = {}
        self._candidates: list[_Candidate] = []

    def take(self, record: Recorded) -> None:
        """Take in one stored commit; commits that are known already change nothing."""
        name = parse_events(record.subject).aggregate_id
        if record.seq <= self._seqs.get(name, 0):
            return
        strategy = self._strategies.get(name) or Strategy(name)
        for event in STRATEGY_CODEC.decode(record.data, skip_unknown=True).events:
            strategy = evolve(strategy, event)
        self._keep(strategy, record.seq)

    def replace(self, strategy: Strategy, seq: int) -> None:
        """Take in what this planner just decided, before the broker delivers it."""
        if seq > self._seqs.get(strategy.name, 0):
            self._keep(strategy.copy(), seq)

    def choose(self, *texts: str) -> Choice | None:
        """The strategy for any of `texts`: of the active ones that match, the highest priority, then the first name."""
        return next((one.choice for one in self._candidates if any(map(one.pattern.search, texts))), None)

    def named(self, reference: str) -> Choice | None:
        """What `find` gives; None when NO_STRATEGY was asked for."""
        return None if reference == NO_STRATEGY else self.find(reference)

    def find(self, reference: str) -> Choice:
        """The strategy that `name` (active version) or `name@version` refers to. Raises strategy_not_found."""
        name, at, version = reference.partition("@")
        if at and not (version.isascii() and version.isdecimal()):
            raise Rejected("bad_request", "a strategy is written name or name@version", field="strategy")
        put = self.get(name, int(version) if at else None)
        return Choice(f"{name}@{put.version}", put.body)

    def get(self, name: str, version: int | None = None) -> StrategyPut:
        """One version as it was stored, the active one when none is named. Raises strategy_not_found."""
        strategy = self._strategies.get(name)
        if strategy is None:
            raise not_found(name, version)
        put = strategy.versions.get(strategy.active if version is None else version)
        if put is None and version is None:
            raise Rejected(
                "strategy_not_found", f"no version of {name} is active", name=name, versions=sorted(strategy.versions)
            )
        if put is None:
            raise not_found(name, version)
        return put

    def views(self) -> list[StrategyView]:
        """All strategies by name, the inactive ones too."""
        return [self._strategies[name].view() for name in sorted(self._strategies) if self._strategies[name].versions]

    def __contains__(self, name: object) -> bool:
        return name in self._strategies

    def __len__(self) -> int:
        return len(self._strategies)

    def _keep(self, strategy: Strategy, seq: int) -> None:
        name = strategy.name
        self._strategies[name] = strategy
        self._seqs[name] = seq
        others = [one for one in self._candidates if one.name != name]
        body = strategy.body
        if body is not None and (pattern := _compiled(body.pattern)) is not None:
            others.append(_Candidate(body.priority, name, pattern, Choice(f"{name}@{strategy.active}", body)))
        self._candidates = sorted(others, key=lambda one: (-one.priority, one.name))


def _compiled(source: str) -> Pattern | None:
    """None for a pattern that only another version of this program understands: it is never chosen here."""
    try:
        return Pattern(source)
    except Rejected:
        return None
