"""The breaker of one model: closed, open after so many failures in a row, half open for one probe. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from contracts.breaker import (
    BreakerCleared,
    BreakerClosed,
    BreakerEvent,
    BreakerFailed,
    BreakerOpened,
    BreakerProbed,
)
from contracts.errors import Rejected
from services.runtime.decider import Decider

BreakerState = Literal["closed", "half_open", "open"]
FORGOTTEN_AFTER_MS: Final = 600_000
"""Failures that are so long apart say nothing about each other."""
COUNTED: Final = frozenset({"provider_error", "provider_overloaded", "provider_unreachable", "timeout"})
"""What says that a model is ill. A refused key or request says something about whoever asks."""


AT_ONCE: Final = frozenset({"provider_overran"})
"""What says that the next call may cost more than anybody reserved: one such failure is enough."""


@dataclass(frozen=True, slots=True)
class Enter:
    """A call of `worker` wants to begin. `probe` names it if it must be the probe; it may take `lease_ms`."""

    probe: str
    lease_ms: int
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """A call failed with a code that counts. `probe` is its name if it was one. Opens for `open_ms` at `failures`."""

    code: str
    probe: str
    failures: int
    open_ms: int
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Succeed:
    """The provider answered, with an answer or with a refusal that is not its own fault."""

    probe: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Abandon:
    """A probe was stopped before it was answered, or had no time to be: the next call may be one at once."""

    probe: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """A person has mended the model: what was counted is of no interest any more."""

    by: str = ""


BreakerCommand = Enter | Fail | Succeed | Abandon | Reset


@dataclass(frozen=True, slots=True)
class Breaker:
    """How a model is. `until_ms` ends the pause while open, and the wait for the probe while half open."""

    model: str
    status: BreakerState = "closed"
    failures: int = 0
    failed_at_ms: int = 0
    until_ms: int = 0
    probe: str = ""
    code: str = ""

    def refusal(self, now_ms: int) -> Rejected | None:
        """Why a call would not be let through now; None when it would be, if need be as the probe."""
        if self.status == "closed" or now_ms >= self.until_ms:
            return None
        # While the probe is out nobody knows how long it takes; its lease would be the worst case.
        wait_ms = self.until_ms - now_ms if self.status == "open" else min(1_000, self.until_ms - now_ms)
        return Rejected(
            "circuit_open", model=self.model, state=self.status, retry_after=-(-wait_ms // 1000),
            retry_after_ms=wait_ms, last_failure=self.code,
        )  # fmt: skip


def decide(command: BreakerCommand, breaker: Breaker, now_ms: int) -> Sequence[BreakerEvent]:
    """Judge a wish or an outcome. Raises Rejected("circuit_open")."""
    match command:
        case Enter():
            refusal = breaker.refusal(now_ms)
            if refusal is not None:
                raise refusal
            if breaker.status == "closed":
                return ()
            return (BreakerProbed(breaker.model, now_ms, now_ms + command.lease_ms, command.probe, command.worker),)
        case Fail():
            return _failed(command, breaker, now_ms)
        case Succeed():
            if breaker.status == "closed":
                return (BreakerCleared(breaker.model, now_ms, command.worker),) if breaker.failures else ()
            return (BreakerClosed(breaker.model, now_ms, command.worker),) if _is_probe(command.probe, breaker) else ()
        case Abandon():
            if not _is_probe(command.probe, breaker):
                return ()
            return (BreakerOpened(breaker.model, now_ms, now_ms, breaker.code, command.worker),)
        case Reset():
            if breaker.status == "closed":
                return (BreakerCleared(breaker.model, now_ms, command.by),) if breaker.failures else ()
            return (BreakerClosed(breaker.model, now_ms, command.by),)
        case _:
            assert_never(command)


def _failed(command: Fail, breaker: Breaker, now_ms: int) -> Sequence[BreakerEvent]:
    opened = BreakerOpened(breaker.model, now_ms, now_ms + command.open_ms, command.code, command.worker)
    if breaker.status != "closed":
        # A call that began before it opened tells nothing new.
        return (opened,) if _is_probe(command.probe, breaker) else ()
    recent = now_ms - breaker.failed_at_ms < FORGOTTEN_AFTER_MS
    failures = (breaker.failures if recent else 0) + 1
    failed = BreakerFailed(breaker.model, now_ms, failures, command.code, command.worker)
    return (failed, opened) if failures >= command.failures or command.code in AT_ONCE else (failed,)


def _is_probe(probe: str, breaker: Breaker) -> bool:
    return breaker.status == "half_open" and probe == breaker.probe


def evolve(breaker: Breaker, event: BreakerEvent) -> Breaker:
    """Take a fact in."""
    match event:
        case BreakerFailed():
            return Breaker(event.model, "closed", event.failures, event.at_ms, code=event.code)
        case BreakerCleared() | BreakerClosed():
            return Breaker(event.model)
        case BreakerOpened():
            return Breaker(event.model, "open", until_ms=event.until_ms, code=event.code)
        case BreakerProbed():
            return Breaker(event.model, "half_open", until_ms=event.until_ms, probe=event.probe, code=breaker.code)
        case _:
            assert_never(event)


BREAKER: Final[Decider[BreakerCommand, Breaker, BreakerEvent]] = Decider(
    initial=Breaker, decide=decide, evolve=evolve, is_terminal=lambda _: False
)
