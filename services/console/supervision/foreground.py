"""`htdag up` in the foreground: start, show, restart, and drain on Ctrl-C or TERM."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from contracts.errors import OK, Rejected
from services.console import local_identity
from services.console.connection import bus_at
from services.console.home import Home
from services.console.output import Output
from services.console.processes import identify
from services.console.supervision import status
from services.console.supervision.broker import EmbeddedBroker, prepare
from services.console.supervision.fleet import Fleet
from services.console.supervision.keeper import Keeper
from services.console.supervision.last_words import last_words
from services.console.supervision.plan import READY_S, UpPlan, check_configuration
from services.console.supervision.scale import remember
from services.console.supervision.strays import sweep
from services.console.terminal import terminal_text
from services.runtime.redaction import masked

if TYPE_CHECKING:
    from rich.table import Table

_REDRAW_S: Final = 0.5


async def find_broker(home: Home, plan: UpPlan) -> tuple[EmbeddedBroker | None, str]:
    """The broker to use: that of NATS_URL when it is set (then none is started), else an embedded one."""
    url = os.environ.get("NATS_URL")
    if plan.embedded or not url:
        broker = prepare(home, port=plan.port, sync=plan.sync)
        return broker, broker.operator_url
    async with bus_at(url) as bus:
        try:
            await bus.api("INFO")
        except Rejected as error:
            if error.code == "jetstream_unavailable":
                raise Rejected("jetstream_unavailable", f"NATS at {masked(url)} has no JetStream") from error
            raise
    return None, url


@asynccontextmanager
async def instance(home: Home, plan: UpPlan, output: Output) -> AsyncIterator[Fleet]:
    """An instance for as long as the block runs: started before it, drained behind it, recorded all the time."""
    check_configuration(home, plan)
    with home.lock():
        left = await sweep(home)
        if left:
            output.note(f"ended {len(left)} processes that an earlier instance had left behind")
        broker, url = await find_broker(home, plan)
        me = identify(os.getpid())

        def changed() -> None:
            with contextlib.suppress(Rejected):
                home.write_record(fleet.record(me, "foreground"))  # a full disk must not end the watch over it

        fleet = Fleet(home, broker, url, plan, changed)
        remember(home, plan.scale)
        keeping: asyncio.Task[None] | None = None
        try:
            await fleet.start()
            keeping = asyncio.create_task(Keeper(home, FleetCopies(fleet), output.note).run(url), name="keeper")
            yield fleet
        finally:
            if keeping is not None:
                keeping.cancel()
                await asyncio.wait([keeping])
            await fleet.stop()
            home.instance_file.unlink(missing_ok=True)


class FleetCopies:
    """The children of a fleet, as the keeper of their number sees them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stopping: dict[str, asyncio.Task[None]] = {}

    async def running(self) -> dict[str, int]:
        """See Copies.running."""
        return {name: pid for name, pid in (await self._fleet.running()).items() if name not in self._stopping}

    async def add(self, name: str) -> None:
        """See Copies.add."""
        if name in self._stopping:
            await asyncio.wait([self._stopping[name]])
        await self._fleet.add(name)

    async def stop(self, name: str) -> None:
        """See Copies.stop. It takes its time; others are looked after meanwhile."""
        task = asyncio.create_task(self._fleet.stop_one(name), name=f"stop {name}")
        self._stopping[name] = task
        task.add_done_callback(lambda _: self._stopping.pop(name, None))


async def wait_ready(fleet: Fleet, deadline_s: float = READY_S) -> bool:
    """Wait until all is ready, a child was given up, or the deadline has passed; whether all is ready."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        if fleet.ready or fleet.failed is not None or loop.time() >= end:
            return fleet.ready
        await asyncio.sleep(0.05)


def not_ready(fleet: Fleet) -> Rejected:
    """The refusal that says which service is not ready, and why."""
    reasons = {
        child.spec.name: child.reason + (last_words(child.spec.log) if child.state == "failed" else "")
        for child in fleet.children
        if child.state != "ready"
    }
    return Rejected(
        "service_unavailable",
        f"not ready: {', '.join(reasons)}",
        hint=f"look at the logs in {fleet.home.logs}",
        services=reasons,
    )


async def up(home: Home, plan: UpPlan, output: Output) -> int:
    """Run the instance until Ctrl-C or TERM; its exit code is 0 after a clean drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with instance(home, plan, output) as fleet:
        announcer = asyncio.create_task(_announce(fleet, output), name="announce")
        try:
            await _show_until(stop, fleet, output)
        finally:
            announcer.cancel()
            # A second Ctrl-C means: at once.
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, fleet.kill)
        failed = fleet.failed
        if failed is not None:
            raise not_ready(fleet)
        output.note("draining")
    output.note("stopped")
    return OK


async def _announce(fleet: Fleet, output: Output) -> None:
    """Print what is running once it is all ready; say what is not, if that takes too long."""
    if await wait_ready(fleet):
        record = fleet.record(identify(os.getpid()), "foreground")
        if output.json:
            output.value(status.document(record))
        elif not output.live:
            output.note(status.table(record, Output()))
        output.note("ready; stop with Ctrl-C" if not output.live else "")
        for name, link in local_identity.links(fleet.home).items() if output.live else ():
            output.note(f"set up {name}: {link}")
    elif fleet.failed is None:
        output.note(f"still waiting: {not_ready(fleet).detail['services']}")


async def _show_until(stop: asyncio.Event, fleet: Fleet, output: Output) -> None:
    """Show the states until `stop`, or until a child was given up."""
    if output.live:
        from rich.console import Console
        from rich.live import Live

        with Live(_live_table(fleet), console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
            while not stop.is_set() and fleet.failed is None:
                await _pause(stop)
                live.update(_live_table(fleet))
        return
    seen: dict[str, str] = {}
    while not stop.is_set() and fleet.failed is None:
        for child in fleet.children:
            line = f"{child.spec.name} {child.state}" + (f" ({child.reason})" if child.reason else "")
            if seen.get(child.spec.name) != line:
                seen[child.spec.name] = line
                output.note(line)
        await _pause(stop, 0.1)


async def _pause(stop: asyncio.Event, seconds: float = _REDRAW_S) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return  # nothing was wished for so long: look again


def _live_table(fleet: Fleet) -> "Table":
    from rich.table import Table
    from rich.text import Text

    record = fleet.record(identify(os.getpid()), "foreground")
    output = Output()
    output.colour = False
    table = Table(
        *status.HEADERS, title=f"htdag  {masked(fleet.url)}  {fleet.home.root}", title_justify="left", box=None
    )
    for row in status.rows(record, output):
        table.add_row(*[Text(terminal_text(str(cell if cell is not None else "-"))) for cell in row])
    for child in fleet.children:
        if child.reason:
            table.add_row(Text(terminal_text(f"{child.spec.name}: {child.reason}"), style="yellow"))
    return table
