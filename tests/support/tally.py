"""A small aggregate for testing the runtime: a tally that can be raised, that starts effects and that has deadlines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from contracts.codec import CommitCodec
from contracts.errors import Rejected
from services.runtime.decider import Decider


class Raised(msgspec.Struct, frozen=True, tag_field="type", tag="tally.raised.v1"):
    by: int


class Asked(msgspec.Struct, frozen=True, tag_field="type", tag="tally.asked.v1"):
    step: str


class Answered(msgspec.Struct, frozen=True, tag_field="type", tag="tally.answered.v1"):
    step: str
    text: str


class Expired(msgspec.Struct, frozen=True, tag_field="type", tag="tally.expired.v1"):
    pass


class WaitedUntil(msgspec.Struct, frozen=True, tag_field="type", tag="tally.waited_until.v1"):
    at_ms: int


Event = Raised | Asked | Answered | Expired | WaitedUntil
CODEC: CommitCodec[Any] = CommitCodec(Event)


@dataclass(frozen=True)
class Raise:
    by: int = 1


@dataclass(frozen=True)
class Ask:
    step: str


@dataclass(frozen=True)
class Answer:
    step: str
    text: str


@dataclass(frozen=True)
class WaitUntil:
    at_ms: int


@dataclass(frozen=True)
class TimePassed:
    pass


@dataclass(frozen=True)
class Break:
    pass


@dataclass(frozen=True)
class Call:
    key: str


@dataclass
class Tally:
    total: int = 0
    open_steps: dict[str, None] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    due_at_ms: int | None = None


def decide(command: Any, state: Tally, now_ms: int) -> Sequence[Any]:
    match command:
        case Raise(by):
            if by <= 0:
                raise Rejected("bad_request", "only upwards")
            return (Raised(by),)
        case Ask(step):
            return () if step in state.open_steps or step in state.answers else (Asked(step),)
        case Answer(step, text):
            return (Answered(step, text),) if step in state.open_steps else ()
        case WaitUntil(at_ms):
            return (WaitedUntil(at_ms),)
        case TimePassed():
            return (Expired(),) if state.due_at_ms is not None and state.due_at_ms <= now_ms else ()
        case Break():
            raise ZeroDivisionError("a bug")
    raise TypeError(command)


def evolve(state: Tally, event: Any) -> Tally:
    match event:
        case Raised(by):
            state.total += by
        case Asked(step):
            state.open_steps[step] = None
        case Answered(step, text):
            state.open_steps.pop(step, None)
            state.answers[step] = text
        case WaitedUntil(at_ms):
            state.due_at_ms = at_ms
        case Expired():
            state.due_at_ms = None
            state.total = -1
    return state


TALLY: Decider[Any, Tally, Any] = Decider(
    initial=lambda _: Tally(),
    decide=decide,
    evolve=evolve,
    is_terminal=lambda state: state.total >= 1_000_000,
    react=lambda _, events: [Call(event.step) for event in events if isinstance(event, Asked)],
    recover=lambda state: [Call(step) for step in state.open_steps],
    deadline_at_ms=lambda state: state.due_at_ms,
    time_command=lambda _: TimePassed(),
    summary=lambda state: {"total": state.total},
)
