"""The decider: an aggregate as pure functions. No clock, no chance, no I/O.

After Jérémie Chassaing's "Functional Event Sourcing Decider", with three additions for actors that wait for the world:
`advance` (facts that follow by themselves), `react` and `recover` (effects of events and of a state).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E")


def _nothing(*_: Any) -> tuple[()]:
    return ()


def _none(_: Any) -> None:
    return None


def _one(_: Any) -> int:
    return 1


def _no(_: Any) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Decider(Generic[C, S, E]):
    """One kind of aggregate.

    Laws, each tested: `decide` is deterministic; a repeated command gives no events; folding events from the wire
    equals folding them in memory; after `is_terminal` nothing happens; `evolve` takes in every event ever written.
    """

    initial: Callable[[str], S]
    """Aggregate id to the state before its first event."""
    decide: Callable[[C, S, int], Sequence[E]]
    """Judge a command at a time (UTC epoch ms). Raises `contracts.errors.Rejected` to refuse."""
    evolve: Callable[[S, E], S]
    """Take a fact in. Never fails, never judges. May change and return the same object: states can be big, and a
    state has one owner."""
    is_terminal: Callable[[S], bool]
    advance: Callable[[S, int], Sequence[E]] = _nothing
    """What follows by itself after a mailbox was drained; called until it gives nothing."""
    react: Callable[[S, Sequence[E]], Sequence[Any]] = _nothing
    """Effects of events that were just committed."""
    recover: Callable[[S], Sequence[Any]] = _nothing
    """Effects that are still open in a state folded from the log; carrying one out twice must do no harm."""
    deadline_at_ms: Callable[[S], int | None] = _none
    """The next moment at which time itself must be judged."""
    time_command: Callable[[int], C] | None = None
    """The command that tells the aggregate that time has passed."""
    begins: Callable[[C], bool] = _no
    """Whether this command is normally an aggregate's first: then its log is assumed empty and not read before; the
    sequence check of the append finds out when that was wrong."""
    summary: Callable[[S], Mapping[str, Any] | None] = _none
    """What a list shows of the aggregate; stored as a header of each commit."""
    weight: Callable[[S], int] = _one
    """How much memory a state takes, in a unit of the aggregate's own; what is over is kept up to a sum of it."""


def fold(decider: Decider[C, S, E], state: S, events: Iterable[E]) -> S:
    """Take all `events` in, in order."""
    evolve = decider.evolve
    for event in events:
        state = evolve(state, event)
    return state
