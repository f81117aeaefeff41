"""Given, when, then: the laws of a decider as sentences.

    Spec(RUN, "r1").given(CREATED).when(CancelRun()).then(RunCancelRequested(""), …)
    Spec(RUN, "r1").given().when(CancelRun()).then_rejected("run_not_found")

`given` takes facts; `after` takes commands and lets follow what follows, as the actor host does. Each `when` also
checks two laws: deciding twice gives the same, and facts from the wire fold to the same state as facts in memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

from contracts.codec import CommitCodec
from contracts.commit import Commit
from contracts.errors import Rejected
from services.runtime.decider import Decider, fold

NOW_MS = 1_790_000_000_000
TURNS_MAX = 100_000


class Told:
    """What a command led to, to be compared with what should have come of it."""

    def __init__(self, spec: "Spec", events: Sequence[Any], follows: Sequence[Any], refused: Rejected | None) -> None:
        self.spec, self.events, self.follows, self.refused = spec, list(events), list(follows), refused

    def then(self, *events: Any) -> "Spec":
        """The command itself led to exactly these events."""
        assert self.refused is None, f"refused: {self.refused}"
        assert self.events == list(events)
        return self.spec

    def then_follows(self, *events: Any) -> "Spec":
        """By itself, behind the command's own events, exactly this followed."""
        assert self.refused is None, f"refused: {self.refused}"
        assert self.follows == list(events)
        return self.spec

    def then_nothing(self) -> "Spec":
        """Neither an event nor a refusal."""
        return self.then()

    def then_rejected(self, code: str, **detail: Any) -> "Spec":
        """Refused, with this code and at least this detail."""
        assert self.refused is not None, f"not refused: {self.events}"
        assert self.refused.code == code
        assert detail.items() <= self.refused.detail.items()
        return self.spec

    def types(self) -> list[str]:
        """Type names of everything that happened, in order."""
        assert self.refused is None, f"refused: {self.refused}"
        return [type(event).__name__ for event in (*self.events, *self.follows)]


class Spec:
    """One aggregate of `decider` with a history. `codec` checks every history over the wire."""

    def __init__(
        self, decider: Decider[Any, Any, Any], aggregate_id: str, *, codec: CommitCodec[Any], same: Callable[[Any], Any]
    ) -> None:
        self.decider, self.aggregate_id, self._codec, self._same = decider, aggregate_id, codec, same
        self.history: list[Any] = []
        self.state = decider.initial(aggregate_id)
        self.now_ms = NOW_MS

    def given(self, *events: Any) -> "Spec":
        """These facts happened."""
        self._take(events)
        return self

    def after(self, *commands: Any) -> "Spec":
        """These commands were judged, and what follows by itself happened."""
        for command in commands:
            self.when(command)
        return self

    def at(self, now_ms: int) -> "Spec":
        """It is this late now."""
        self.now_ms = now_ms
        return self

    def later(self, by_ms: int) -> "Spec":
        """It is so much later now."""
        self.now_ms += by_ms
        return self

    def when(self, command: Any) -> Told:
        """Judge a command; afterwards the history holds what came of it."""
        events, refused = self._decide(command)
        again, refused_again = self._decide(command)
        assert again == events, "deciding twice gave two answers"
        if refused is not None:
            assert refused_again is not None
            assert refused_again.to_wire() == refused.to_wire(), "deciding twice gave two answers"
            return Told(self, (), (), refused)
        self._take(events)
        follows = self._follow()
        self._check_wire()
        return Told(self, events, follows, None)

    def effects(self, *kinds: type) -> list[Any]:
        """Effects that are open now, as after a crash; only those of `kinds` when given."""
        return [effect for effect in self.decider.recover(self.state) if not kinds or isinstance(effect, kinds)]

    def _decide(self, command: Any) -> tuple[list[Any], Rejected | None]:
        try:
            return list(self.decider.decide(command, self.state, self.now_ms)), None
        except Rejected as refused:
            return [], refused

    def _follow(self) -> list[Any]:
        follows: list[Any] = []
        for _ in range(TURNS_MAX):
            events = list(self.decider.advance(self.state, self.now_ms))
            assert list(self.decider.advance(self.state, self.now_ms)) == events, "advancing twice gave two answers"
            if not events:
                return follows
            self._take(events)
            follows.extend(events)
        raise AssertionError("advance does not come to an end")

    def _take(self, events: Sequence[Any]) -> None:
        for event in events:
            self.state = self.decider.evolve(self.state, event)
        self.history.extend(events)

    def _check_wire(self) -> None:
        commit = Commit(at="2026-11-20T00:00:00Z", by="test", cause="c", corr="r", events=self.history)
        told = self._codec.decode(self._codec.encode(commit)).events
        folded = fold(self.decider, self.decider.initial(self.aggregate_id), told)
        assert self._same(folded) == self._same(self.state), "facts from the wire fold to another state"
