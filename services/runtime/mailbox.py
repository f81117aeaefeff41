"""What waits for an actor: inputs with their senders, in order, and what became of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from contracts.codec import Undecodable, UnknownType
from contracts.errors import Rejected
from services.runtime.event_store import Conflict

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E")

Settled = Callable[[BaseException | None], None]


class Interrupted(Exception):
    """The process is stopping before this input was finished. Neither a failure nor an attempt."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[S, E]):
    """What a command led to. `state` belongs to the actor: read it now, do not keep it."""

    state: S
    seq: int
    events: Sequence[E]


Answered = Callable[[Outcome[S, E] | Rejected], None]


class Input(Generic[C, S, E]):
    """One command in a mailbox. `settled` is called once, when its durable source may forget it."""

    __slots__ = ("answered", "by", "command", "corr", "message_id", "settled", "trace")

    def __init__(
        self,
        command: C,
        message_id: str,
        by: str = "",
        corr: str = "",
        trace: str = "",
        settled: Settled | None = None,
        answered: Answered[S, E] | None = None,
    ) -> None:
        self.command, self.message_id, self.by, self.corr, self.trace = command, message_id, by, corr, trace
        self.settled, self.answered = settled, answered

    @property
    def matters(self) -> bool:
        """Whether somebody waits for what becomes of it: a caller, or a durable source that may then forget it."""
        return self.settled is not None or self.answered is not None

    def refuse(self, error: BaseException, refused: Rejected) -> None:
        """Tell whoever waits that it was not taken: the asker the refusal, the durable source the error."""
        if self.answered is not None:
            self.answered(refused)
        if self.settled is not None:
            self.settled(error)


class Actor(Generic[C, S, E]):
    """One aggregate in memory: its state, its mailbox, and what it has under way."""

    __slots__ = (
        "actor_id",
        "alone",
        "armed_at_ms",
        "box",
        "corr",
        "events_unsnapped",
        "known",
        "loaded",
        "local_due_ms",
        "local_timer",
        "open_effects",
        "running",
        "seq",
        "settling",
        "state",
        "subject",
        "tokens",
        "touched_s",
        "trace",
        "turning",
    )

    def __init__(self, actor_id: str, subject: str, state: S) -> None:
        self.actor_id, self.subject, self.state = actor_id, subject, state
        self.seq = 0
        self.loaded = False
        self.known = False
        self.box: list[Input[C, S, E]] = []
        self.alone = 0
        self.turning = False
        self.open_effects = 0
        self.running: set[Any] = set()
        self.tokens: list[Settled] = []
        self.settling = False
        self.armed_at_ms: int | None = None
        self.local_due_ms: int | None = None
        self.local_timer: Any = None
        self.touched_s = 0.0
        self.corr = ""
        self.trace = ""
        """The trace of whoever asked last: what follows by itself, and in another process, belongs to it."""
        self.events_unsnapped = 0

    def take(self) -> list[Input[C, S, E]]:
        """What the next turn judges: all that waits, or one alone after a turn that broke."""
        items, self.box = self.box, []
        if self.alone:
            self.alone -= 1
            items, self.box = items[:1], items[1:]
        self.trace = next((item.trace for item in items if item.trace), self.trace)
        return items

    def settle(self, outcome: BaseException | None) -> None:
        """Tell the sources of all durable inputs taken in so far what became of them."""
        tokens, self.tokens = self.tokens, []
        for settled in tokens:
            settled(outcome)

    def put_back(self, items: list[Input[C, S, E]]) -> None:
        """These broke a turn together: each is judged alone now."""
        self.box = items + self.box
        self.alone = len(items)

    @property
    def quiet(self) -> bool:
        """Nothing waits, nothing runs here: only the durable world can wake it."""
        return not self.box and not self.turning and not self.open_effects

    @property
    def at_rest(self) -> bool:
        """Quiet, and nobody waits for it to be settled: it may be forgotten, its truth is in the log."""
        return self.quiet and not self.tokens and not self.settling


def refusal_of(error: Exception, actor_id: str) -> Rejected:
    """What whoever waits is told when a turn broke; nothing of a bug is shown."""
    if isinstance(error, Rejected):
        return error
    if isinstance(error, Conflict):
        return Rejected("conflict", "too many writers at once")
    if isinstance(error, UnknownType | Undecodable):
        return Rejected("poison", actor=actor_id)
    return Rejected("internal")
