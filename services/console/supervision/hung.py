"""Ends workers that hang. Their process lives, so that whoever supervises it is content: it must be ended to be begun.

Dead by its beats is not enough for the last step: a worker that is cut off from the broker alone, or that is ending its
last calls, still answers at /livez, and is left alone. Whatever cannot be seen is a reason to do nothing.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmHealth
from contracts.streams import LLM_WORKERS
from contracts.subjects import LLM_HEALTH, llm_worker
from services.console.home import Home
from services.console.processes import alive, identify, send
from services.console.supervision.readiness import get, http_of, instance_of
from services.console.supervision.scale import service_of
from services.console.supervision.silence import Silence

if TYPE_CHECKING:
    from services.runtime.bus import Bus, Message

POOL: Final = "llm-worker"
ROUND_TRIP_S: Final = 3.0
_DECODE: Final = msgspec.json.Decoder(LlmHealth).decode


class HungWorkers:
    """Listens to the beats of the pool. `running` gives the copies with their pid, `note` says what is done."""

    def __init__(
        self, home: Home, running: Callable[[], Awaitable[Mapping[str, int]]], note: Callable[[str], None]
    ) -> None:
        self._home, self._running, self._note = home, running, note
        self._silence = Silence()

    async def listen(self, bus: "Bus") -> None:
        """Hear the beats from now on; what went before on another connection does not count."""
        self._silence.forget()
        await bus.subscribe(LLM_HEALTH, self._take)

    async def look(self, bus: "Bus", running: Mapping[str, int]) -> set[str]:
        """End one that hangs, if there is any; the programs that are dead and stay so, for they are no help.

        Raises Rejected when the broker does not answer: then nothing is known of anybody.
        """
        programs = {name: self._worker_of(pid) for name, pid in running.items() if service_of(name) == POOL}
        if not programs:
            return set()
        new = [worker for worker in programs.values() if worker and not self._silence.knows(worker)]
        dead = await self._dead(bus, programs)
        for worker in new:
            await self._learn_pace(bus, worker)
        name = self._silence.to_end(dead, _now_s())
        if name is not None:
            await self._end(bus, name, running[name], programs)
            del dead[name]  # it is begun anew, or it was not dead
        return set(dead)

    async def _end(self, bus: "Bus", name: str, pid: int, programs: Mapping[str, str]) -> None:
        worker_id, process = programs[name], identify(pid)
        if await self._answers(pid):
            self._note(f"{name} (worker {worker_id}) misses its beats and answers at /livez: it is left alone")
            self._silence.heard(worker_id, _now_s())
            return
        # Asked once more: it may have beaten meanwhile, or we were frozen ourselves and heard no answer for that.
        still = (await self._dead(bus, programs)).get(name)
        if still is None or (await self._running()).get(name) != pid or not alive(process):
            return
        self._note(
            f"{name} HANGS: nothing was heard of its worker {worker_id} for {still:.0f}s, and /livez is silent:"
            f" pid {pid} is killed, to be begun anew; its calls are taken over"
        )
        self._silence.ended(name, _now_s())
        send(process, signal.SIGKILL)

    async def _dead(self, bus: "Bus", programs: Mapping[str, str]) -> dict[str, float]:
        try:
            # What the broker had for us comes before its answer: after it, all that could be heard was heard. A flush
            # would not do: it ends without an answer, too, when the connection does.
            await bus.api("INFO", timeout_s=ROUND_TRIP_S)
        except Rejected:
            self._silence.forget()
            raise
        return self._silence.dead(programs, _now_s())

    async def _learn_pace(self, bus: "Bus", worker_id: str) -> None:
        """How often it beats, by its beat from before we listened; without one it is the usual pace."""
        with contextlib.suppress(Rejected, msgspec.MsgspecError):
            kept = await bus.last(LLM_WORKERS, llm_worker(worker_id))
            if kept is not None:
                self._silence.heard(worker_id, _now_s(), _DECODE(kept.data).every_s)

    async def _answers(self, pid: int) -> bool:
        http = http_of(self._home.run, POOL, pid)
        if http is None:
            return True  # where it would answer is not known
        try:
            await get(f"{http}/livez")
        except (OSError, TimeoutError, ValueError):
            return False
        return True

    def _worker_of(self, pid: int) -> str:
        """The worker of a process that lives; nothing when there is none, or it has not said who it is."""
        if not pid or not alive(identify(pid)):
            return ""
        return instance_of(self._home.run, POOL, pid) or ""

    def _take(self, message: "Message") -> None:
        try:
            health = _DECODE(message.data)
        except msgspec.MsgspecError:
            return  # it is no beat of ours
        self._silence.heard(health.worker_id, _now_s(), health.every_s)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
