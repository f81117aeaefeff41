"""The edge of an actor: whoever carries out its effects."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

C_co = TypeVar("C_co", covariant=True)


class EffectRunner(Protocol[C_co]):
    """Carries out effects after their commit was acknowledged.

    `start` begins one effect and returns at once. It calls `done` exactly once, on the event loop: with the command
    that carries the result, or with None when the effect only had to be handed over durably. It never raises: a
    failure is a result. An effect may have a `key`; while one with that key runs it is not started again.
    """

    def start(self, actor_id: str, effect: Any, done: Callable[[C_co | None], None]) -> None:
        """Begin one effect."""
        ...


class NoEffects:
    """For aggregates that only decide."""

    def start(self, actor_id: str, effect: Any, done: Callable[[Any], None]) -> None:
        """Nothing can be carried out here."""
        raise TypeError(f"{actor_id} has no effects, but got {type(effect).__name__}")
