"""All processes of one instance together: broker first, services behind it; they are drained before it ends."""

import asyncio
from collections.abc import Callable
from typing import Final

from contracts.errors import Rejected
from services.console.home import Home, InstanceRecord, Mode, ServiceRecord
from services.console.processes import Process
from services.console.supervision.broker import EmbeddedBroker, greeting, provision
from services.console.supervision.child import Child
from services.console.supervision.plan import UpPlan, broker_spec, environment, service_specs
from services.console.supervision.readiness import probe
from services.console.supervision.scale import expanded, service_of

BROKER_START_S: Final = 15.0
_PROBE_STARTING_S: Final = 0.1
_PROBE_READY_S: Final = 1.0


class Fleet:
    """The children of one `up`. `changed` is called after every change of a state."""

    def __init__(
        self, home: Home, broker: EmbeddedBroker | None, url: str, plan: UpPlan, changed: Callable[[], None]
    ) -> None:
        self.home, self.url, self._changed = home, url, changed
        self._embedded = broker
        self.broker = Child(broker_spec(home, broker), changed) if broker else None
        self._env = environment(home, broker, plan)
        names = expanded(plan.services, plan.scale)
        self.services = [Child(spec, changed) for spec in service_specs(home, names, self._env)]
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._probes: set[asyncio.Task[None]] = set()

    @property
    def children(self) -> list[Child]:
        """In starting order."""
        return [*([self.broker] if self.broker else []), *self.services]

    @property
    def ready(self) -> bool:
        """Whether everything is ready."""
        return all(child.state == "ready" for child in self.children)

    @property
    def failed(self) -> Child | None:
        """A child that was given up; None when there is none."""
        return next((child for child in self.children if child.state == "failed"), None)

    async def start(self) -> None:
        """Start the broker, wait until it answers, then start all services. Raises Rejected when it does not."""
        if self.broker is not None:
            self._start(self.broker)
            await self._broker_answers(self.broker)
            await self._make_streams()
            self.broker.ready(None)
            self._probes.add(asyncio.create_task(self._watch_broker(self.broker), name="watch nats"))
        for child in self.services:
            self._start(child)
            self._probes.add(asyncio.create_task(self._watch(child), name=f"watch {child.spec.name}"))

    async def running(self) -> dict[str, int]:
        """See Copies.running."""
        return {child.spec.name: child.process.pid if child.process else 0 for child in self.services}

    async def add(self, name: str) -> None:
        """See Copies.add."""
        (spec,) = service_specs(self.home, [name], self._env)
        child = Child(spec, self._changed)
        self.services.append(child)
        self._start(child)
        self._probes.add(asyncio.create_task(self._watch(child), name=f"watch {name}"))

    async def stop_one(self, name: str) -> None:
        """Drain one child and forget it."""
        child = next(one for one in self.services if one.spec.name == name)
        await child.stop()
        await asyncio.gather(self._tasks.pop(name), return_exceptions=True)
        self.services.remove(child)
        self._changed()

    async def stop(self) -> None:
        """Drain the services side by side, then end the broker; each child has its grace time, then it is killed."""
        for task in self._probes:
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self.services))
        if self.broker is not None:
            await self.broker.stop()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def kill(self) -> None:
        """Give up waiting: every child is killed at once."""
        for task in self._tasks.values():
            task.cancel()

    def record(self, supervisor: Process, mode: Mode) -> InstanceRecord:
        """What runs now."""
        gone = Process(0, 0)
        known = {
            child.spec.name: ServiceRecord(child.process or gone, child.http, child.state, child.restarts)
            for child in self.children
        }
        broker = known.pop(self.broker.spec.name) if self.broker else None
        return InstanceRecord(str(self.home.root), mode, supervisor, self.url, broker, known)

    def _start(self, child: Child) -> None:
        self._tasks[child.spec.name] = asyncio.create_task(child.run(), name=child.spec.name)

    async def _broker_answers(self, child: Child) -> None:
        deadline = asyncio.get_running_loop().time() + BROKER_START_S
        while True:
            task = self._tasks[child.spec.name]
            if task.done():
                await task  # raises what made it impossible to start
            words = child.last_words()
            if "address already in use" in words:
                raise Rejected("port_in_use", "the broker's port was taken while it started")
            try:
                await greeting(self.url, timeout_s=1.0)
            except Rejected:
                if child.state == "failed" or asyncio.get_running_loop().time() > deadline:
                    raise Rejected("nats_unavailable", f"the embedded broker does not start: {words}") from None
                await asyncio.sleep(_PROBE_STARTING_S)
            else:
                return

    async def _make_streams(self) -> None:
        if self._embedded is not None:
            await provision(self._embedded)

    async def _watch_broker(self, child: Child) -> None:
        while True:
            if child.state == "starting":
                try:
                    await greeting(self.url, timeout_s=1.0)
                    # Somebody may have emptied its store meanwhile.
                    await self._make_streams()
                    child.ready(None)
                except Rejected as error:
                    child.not_ready(error.message, None)
            await asyncio.sleep(_PROBE_STARTING_S if child.state == "starting" else _PROBE_READY_S)

    async def _watch(self, child: Child) -> None:
        while child.state != "failed" and child in self.services:
            if child.process is not None and child.state in ("starting", "ready"):
                result = await probe(self.home.run, service_of(child.spec.name), child.process.pid)
                if result.ready:
                    child.ready(result.http)
                else:
                    child.not_ready(result.reason, result.http)
            await asyncio.sleep(_PROBE_READY_S if child.state == "ready" else _PROBE_STARTING_S)
