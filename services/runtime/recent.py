"""The newest of those that are over: kept for the questions that follow, but only so many."""

from typing import Any, Final

from services.runtime.mailbox import Actor


class Recent:
    """Actors in the order in which they ended, at most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._ended: dict[str, Actor[Any, Any, Any]] = {}

    def add(self, actor: Actor[Any, Any, Any]) -> list[Actor[Any, Any, Any]]:
        """Note that an actor has ended; those that must make room for it."""
        self._ended.pop(actor.actor_id, None)
        self._ended[actor.actor_id] = actor
        return [self._ended.pop(next(iter(self._ended))) for _ in range(len(self._ended) - self._most)]

    def drop(self, actor_id: str) -> None:
        """Forget one."""
        self._ended.pop(actor_id, None)
