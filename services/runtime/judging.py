"""What one turn of an actor decides, before anything of it is stored."""

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from contracts.errors import Rejected
from services.runtime.decider import Decider
from services.runtime.mailbox import Answered, Input

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E")


class Judged(NamedTuple, Generic[S, E]):
    """The state after a turn, its facts, and what to tell whoever asked once the facts are stored."""

    state: S
    events: list[E]
    answers: list[tuple[Answered[S, E], Sequence[E] | Rejected]]


def judge(decider: Decider[C, S, E], state: S, items: Sequence[Input[C, S, E]], now_ms: int) -> Judged[S, E]:
    """Decide one command after the other, then let follow what follows. Pure but for changing the state."""
    decide, evolve, advance = decider.decide, decider.evolve, decider.advance
    events: list[E] = []
    answers: list[tuple[Any, Sequence[E] | Rejected]] = []
    for item in items:
        facts: Sequence[E] | Rejected
        try:
            facts = decide(item.command, state, now_ms)
        except Rejected as refused:
            facts = refused
        else:
            for fact in facts:
                state = evolve(state, fact)
            events += facts
        if item.answered is not None:
            answers.append((item.answered, facts))
    while following := advance(state, now_ms):
        for fact in following:
            state = evolve(state, fact)
        events += following
    return Judged(state, events, answers)
