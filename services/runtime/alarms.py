"""Alarms in memory: they wake an actor that is here at its next deadline. The durable timer is for when it is not."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from services.runtime.clock import Clock
from services.runtime.mailbox import Actor

SLEEP_MAX_S: Final = 3_600.0


class Alarms:
    """One alarm per actor. `wake` is called on the event loop when it is due."""

    def __init__(self, clock: Clock, wake: Callable[[Actor[Any, Any, Any], int], None]) -> None:
        self._clock, self._wake = clock, wake

    def watch(self, actor: Actor[Any, Any, Any], due_ms: int | None) -> None:
        """Make sure the alarm rings at `due_ms` or before: one that rings too early is looked at again then."""
        if due_ms is None:
            self.cancel(actor)
        elif actor.local_due_ms is None or due_ms < actor.local_due_ms:
            self.set(actor, due_ms)

    def set(self, actor: Actor[Any, Any, Any], due_ms: int) -> None:
        """Ring at `due_ms`, and at no other time."""
        self.cancel(actor)
        actor.local_due_ms = due_ms
        delay_s = max(0.0, (due_ms - self._clock.now_ms()) / 1000)
        # The wall clock may be set back or forward: look at it now and then.
        actor.local_timer = asyncio.get_running_loop().call_later(min(delay_s, SLEEP_MAX_S), self._ring, actor)

    def cancel(self, actor: Actor[Any, Any, Any]) -> None:
        """Do not ring."""
        if actor.local_timer is not None:
            actor.local_timer.cancel()
            actor.local_timer = None
        actor.local_due_ms = None

    def _ring(self, actor: Actor[Any, Any, Any]) -> None:
        actor.local_timer = None
        due_ms, actor.local_due_ms = actor.local_due_ms, None
        now_ms = self._clock.now_ms()
        if due_ms is not None and due_ms > now_ms:
            self.set(actor, due_ms)
        else:
            self._wake(actor, now_ms)


def must_arm(armed_at_ms: int | None, due: int | None) -> bool:
    """Whether the durable timer must change. One that fires too early is harmless, one that fires too late is not."""
    if due is None:
        return armed_at_ms is not None
    return armed_at_ms is None or due < armed_at_ms
