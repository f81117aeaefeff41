"""The newest of those that are over: kept for the questions that follow, but only so many, and not the biggest."""

from typing import Any, Final

from services.runtime.mailbox import Actor


class Recent:
    """Actors in the order in which they ended: at most `most` of them, together no heavier than `weight_max`."""

    def __init__(self, most: int, weight_max: int) -> None:
        self._most: Final = most
        self._weight_max: Final = weight_max
        self._weight = 0
        self._ended: dict[str, tuple[Actor[Any, Any, Any], int]] = {}

    def add(self, actor: Actor[Any, Any, Any], weight: int) -> list[Actor[Any, Any, Any]]:
        """Note that an actor has ended; those that must make room: the heaviest, itself perhaps, then the oldest."""
        self.drop(actor.actor_id)
        self._ended[actor.actor_id] = actor, weight
        self._weight += weight
        going = []
        while self._weight > self._weight_max:
            going.append(self._take(max(self._ended, key=lambda name: self._ended[name][1])))
        while len(self._ended) > self._most:
            going.append(self._take(next(iter(self._ended))))
        return going

    def drop(self, actor_id: str) -> None:
        """Forget one."""
        if actor_id in self._ended:
            self._take(actor_id)

    def _take(self, actor_id: str) -> Actor[Any, Any, Any]:
        actor, weight = self._ended.pop(actor_id)
        self._weight -= weight
        return actor
