"""A few places and a bounded queue before them, in which those who ask take turns: who asks much waits for itself."""

import asyncio
from collections import OrderedDict, deque


class Full(Exception):
    """Too many wait; whoever has the most waiting is the one to go."""


class Turns:
    """Places, given to one asker after the other. `waiting_max` bounds the queue."""

    def __init__(self, places: int, waiting_max: int) -> None:
        self._free, self._waiting_max = places, waiting_max
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues.values()))

    async def take(self, asker: str) -> None:
        """Wait for a place, which `release` gives back; the caller sets the deadline. Raises Full."""
        if self._free:
            self._free -= 1
            return
        if self.waiting >= self._waiting_max:
            self._make_room(asker)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(asker, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(asker, turn)
            if not turn.cancelled() and turn.exception() is None:  # it was given in the very moment
                self.release()
            raise

    def release(self) -> None:
        """Give a place back: the first of the next asker has it."""
        while self._queues:
            asker, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._queues[asker] = queue  # behind the others
            if not turn.done():  # else whoever waited is just giving up
                turn.set_result(None)
                return
        self._free += 1

    def _make_room(self, asker: str) -> None:
        longest = max(self._queues, key=lambda name: len(self._queues[name]))
        if len(self._queues[longest]) <= len(self._queues.get(asker, ())) + 1:
            raise Full
        newest = self._queues[longest].pop()
        if not newest.done():
            newest.set_exception(Full())

    def _leave(self, asker: str, turn: "asyncio.Future[None]") -> None:
        queue = self._queues.get(asker, deque())
        if turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queues[asker]
