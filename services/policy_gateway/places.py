"""Places that are shared fairly among roles: none takes all of them, and who waits is served role by role."""

import asyncio
from collections import Counter, OrderedDict, deque


def share(total: int) -> int:
    """How many of so many places one role may hold."""
    return max(1, total * 3 // 4)


class Places:
    """A semaphore that knows for whom a place is."""

    def __init__(self, total: int) -> None:
        self._free, self._most = total, share(total)
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, role: str) -> None:
        """Wait for a place; whoever was longer without one of those that wait gets it first, role by role."""
        if self._free and self._held[role] < self._most and role not in self._waiting:
            self._take(role)
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(role, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release(role)
            else:
                self._leave(role, place)
            raise

    def release(self, role: str) -> None:
        """Give a place back."""
        self._free += 1
        self._held[role] -= 1
        if not self._held[role]:
            del self._held[role]
        while self._free and self._grant():
            continue

    def _take(self, role: str) -> None:
        self._free -= 1
        self._held[role] += 1

    def _grant(self) -> bool:
        """Give one place to the next role that may have one; whether there was one."""
        for role, queue in self._waiting.items():
            if self._held[role] >= self._most:
                continue
            place = queue.popleft()
            self._waiting.move_to_end(role)
            if not queue:
                del self._waiting[role]
            if not place.done():
                self._take(role)
                place.set_result(None)
            return True
        return False

    def _leave(self, role: str, place: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(role)
        if queue is None or place not in queue:
            return
        queue.remove(place)
        if not queue:
            del self._waiting[role]
