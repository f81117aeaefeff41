"""What an actor host needs from outside: durable timers, and somebody to tell what happens."""

from collections.abc import Sequence
from typing import Any, Protocol


class Timers(Protocol):
    """Durable timers, one per actor."""

    async def arm(self, actor_id: str, at_ms: int) -> None:
        """Deliver the actor's time command at `at_ms`, replacing an earlier wish."""
        ...

    async def disarm(self, actor_id: str) -> None:
        """Forget the actor's timer."""
        ...


class Observer(Protocol):
    """Where the host reports what it sees."""

    def committed(self, events: Sequence[Any], seconds: float) -> None:
        """A commit of these events was acknowledged, so many seconds after it was sent."""
        ...

    def conflict(self) -> None:
        """A race was lost."""
        ...

    def failed(self, actor_id: str, error: BaseException) -> None:
        """A turn broke: a bug, or a log that cannot be read."""
        ...


class Silent:
    """Reports nothing."""

    def committed(self, events: Sequence[Any], seconds: float) -> None:
        """See Observer."""

    def conflict(self) -> None:
        """See Observer."""

    def failed(self, actor_id: str, error: BaseException) -> None:
        """See Observer."""
