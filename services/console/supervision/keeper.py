"""Keeps as many copies of the services as were wished: adds, lets go without cutting a call, ends what hangs."""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmDrain, WorkerView
from contracts.subjects import LLM_DRAIN, rpc
from services.console.asking import first_answer
from services.console.connection import bus_at
from services.console.home import Home
from services.console.supervision.autoscale import IDLE_S, Autoscaler, Signal
from services.console.supervision.backlog import pending_requests
from services.console.supervision.hung import POOL, HungWorkers
from services.console.supervision.readiness import instance_of
from services.console.supervision.scale import Bounds, free_name, service_of, wished

if TYPE_CHECKING:
    from services.runtime.bus import Bus

TICK_S: Final = 0.5
CALM_S: Final = 2.0
"""Between two looks as long as no number is wished."""
ASK_S: Final = 3.0
IDLE_VARIABLE: Final = "HTDAG_SCALE_IDLE_S"


class Copies(Protocol):
    """The processes of an instance, as the keeper may change them."""

    async def running(self) -> dict[str, int]:
        """The copies that are meant to run, by name, with their pid (0: none yet)."""
        ...

    async def add(self, name: str) -> None:
        """Start one more."""
        ...

    async def stop(self, name: str) -> None:
        """Stop one for good: it drains, and does not come back."""
        ...


class Keeper:
    """Looks all the time, also when no number is wished: one that hangs is ended. `note` says what it does."""

    def __init__(self, home: Home, copies: Copies, note: Callable[[str], None]) -> None:
        self._home, self._copies, self._note = home, copies, note
        idle_s = float(os.environ.get(IDLE_VARIABLE) or IDLE_S)
        self._scalers: dict[str, Autoscaler] = {}
        self._idle_s = idle_s
        self._leaving: dict[str, str] = {}
        self._said = ""
        self._hung = HungWorkers(home, copies.running, note)

    async def run(self, url: str) -> None:
        """Keep the copies for ever. `url` is the broker's, as the operator."""
        while True:
            try:
                async with bus_at(url) as bus:
                    await self._hung.listen(bus)
                    while True:
                        await self.look(bus)
                        await asyncio.sleep(TICK_S if wished(self._home) else CALM_S)
            except Rejected as error:
                if error.code != self._said:
                    self._note(f"the pool cannot be looked after: {error.message}")
                    self._said = error.code
            await asyncio.sleep(TICK_S)

    async def look(self, bus: "Bus") -> None:
        """Take one step towards what is wished."""
        wishes = wished(self._home)
        running = await self._copies.running()
        dead = await self._hung.look(bus, running)
        if not wishes:
            return
        views = await self._views(bus) if POOL in wishes else {}
        for service, bounds in wishes.items():
            mine = {name: pid for name, pid in running.items() if service_of(name) == service}
            await self._keep(bus, service, bounds, mine, views, dead)

    async def _keep(
        self,
        bus: "Bus",
        service: str,
        bounds: Bounds,
        running: Mapping[str, int],
        views: Mapping[str, WorkerView],
        dead: Collection[str],
    ) -> None:
        self._see_leaving(running, views)
        await self._let_go(running, views)
        staying = [name for name in running if name not in self._leaving and name not in dead]
        signal = await self._signal(bus, views, running) if service == POOL else Signal()
        scaler = self._scalers.setdefault(service, Autoscaler(self._idle_s))
        step = scaler.decide(bounds, len(staying), signal, asyncio.get_running_loop().time())
        if step > 0:
            name = free_name(service, running)
            if name is not None:
                self._note(f"{name} is added: {signal.waiting} calls wait, for up to {signal.wait_ms / 1000:.1f}s")
                await self._copies.add(name)
        elif step < 0:
            await self._send_away(bus, service, self._least_busy(staying, running, views), running)

    def _least_busy(self, staying: list[str], running: Mapping[str, int], views: Mapping[str, WorkerView]) -> str:
        """Whose leaving costs least: fewest calls, the newest copy first."""

        def cost(name: str) -> tuple[int, int]:
            view = views.get(self._worker_of(running[name]))
            return (view.in_flight if view is not None else 0, -_number(name))

        return min(staying, key=cost)

    async def _send_away(self, bus: "Bus", service: str, name: str, running: Mapping[str, int]) -> None:
        worker_id = self._worker_of(running[name])
        self._note(f"{name} is let go")
        if service != POOL or not worker_id:
            await self._copies.stop(name)
            return
        # It takes nothing more from now on; it is stopped when its calls have ended, however long they take.
        self._leaving[name] = worker_id
        bus.publish(LLM_DRAIN, msgspec.json.encode(LlmDrain(worker_id)))

    def _see_leaving(self, running: Mapping[str, int], views: Mapping[str, WorkerView]) -> None:
        """Whoever takes nothing more does not count, also when it was told so by a keeper that is gone."""
        for name, pid in running.items():
            view = views.get(self._worker_of(pid))
            if view is not None and view.status == "draining":
                self._leaving.setdefault(name, view.worker_id)

    async def _let_go(self, running: Mapping[str, int], views: Mapping[str, WorkerView]) -> None:
        for name, worker_id in list(self._leaving.items()):
            if service_of(name) != POOL or name not in running or self._worker_of(running[name]) != worker_id:
                if name not in running or running[name]:
                    del self._leaving[name]  # it is gone, or another process has its place
                continue
            view = views.get(worker_id)
            if view is not None and view.status == "draining" and view.in_flight == 0:
                await self._copies.stop(name)
                del self._leaving[name]

    async def _signal(self, bus: "Bus", views: Mapping[str, WorkerView], running: Mapping[str, int]) -> Signal:
        ours = {self._worker_of(pid) for pid in running.values()}
        up = [view for view in views.values() if view.status == "up" and not view.silent and view.worker_id in ours]
        idle = sum(view.in_flight == 0 for view in up)
        if any(view.limited for view in up):
            return Signal(idle=idle)  # a limit of all together is reached: more hands would wait with the others
        pending, wait_ms = await pending_requests(bus)
        return Signal(
            waiting=sum(view.waiting for view in up) + pending,
            wait_ms=max([view.wait_ms for view in up] + [wait_ms]),
            idle=idle,
        )

    async def _views(self, bus: "Bus") -> dict[str, WorkerView]:
        try:
            subject = rpc(POOL, "llm", "workers")
            views, _ = await first_answer(lambda: bus.call(subject, {}, timeout_s=ASK_S, into=list[WorkerView]))
        except Rejected:
            return {}  # none is up yet: there is nothing to go by, but what is wished at least
        return {view.worker_id: view for view in views}

    def _worker_of(self, pid: int) -> str:
        return instance_of(self._home.run, POOL, pid) or "" if pid else ""


def _number(name: str) -> int:
    tail = name.rpartition("-")[2]
    return int(tail) if tail.isdecimal() else 1
