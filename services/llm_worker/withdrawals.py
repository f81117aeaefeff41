"""The wish that a call be stopped, said again to all workers while a worker's death may go unnoticed.

Nobody has the call of a worker that has just died. Whoever takes it over some seconds later must have heard the wish,
also if it is up only then.
"""

import asyncio
from typing import Any, Final

from contracts.errors import Rejected
from contracts.subjects import LLM_CANCEL
from services.runtime.bus import Bus

EVERY_S: Final = 1.0
TIMES: Final = 40
"""Longer than a worker needs to come back and to take over what another one left."""
UNDER_WAY_MAX: Final = 1_000


class Withdrawals:
    """Says wishes again. `log` is structlog's."""

    def __init__(self, bus: Bus, log: Any) -> None:
        self._bus, self._log = bus, log
        self._tasks: set[asyncio.Task[None]] = set()

    def say_again(self, wish: bytes) -> None:
        """From now on, for a while; more wishes than UNDER_WAY_MAX at once are said once only."""
        if len(self._tasks) >= UNDER_WAY_MAX:
            self._log.warning("withdrawal_said_once", under_way=len(self._tasks))
            return
        task = asyncio.get_running_loop().create_task(self._repeat(wish), name="llm-withdrawal")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Say nothing more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _repeat(self, wish: bytes) -> None:
        for _ in range(TIMES):
            await asyncio.sleep(EVERY_S)
            try:
                self._bus.publish(LLM_CANCEL, wish)
            except Rejected as error:
                self._log.warning("withdrawal_not_said", code=error.code)
