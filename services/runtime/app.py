"""The harness of one service process: configuration, logs, health, NATS, request verbs and the life cycle, wired once.

A service is `async def build(app: App) -> None`. When it is called the broker is connected and its streams exist;
when it returns the process is ready and its request verbs answer.
"""

import asyncio
import gc
import importlib.metadata
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client

from contracts.errors import CATALOGUE, UNAVAILABLE, Rejected
from contracts.rights import inbox
from services.runtime import event_loop, faults, logs, nats_client, nkeys, telemetry
from services.runtime.bus import Bus
from services.runtime.clock import Clock, SystemClock, rfc3339
from services.runtime.config import Config
from services.runtime.health import Check, HealthServer
from services.runtime.ids import Ids, RandomIds
from services.runtime.lifecycle import Lifecycle, Phase
from services.runtime.metrics import Metrics
from services.runtime.own_streams import OwnStreams
from services.runtime.private_files import UMASK
from services.runtime.redaction import masked
from services.runtime.rpc import Handler, Rpc

FORGED_LINES_MAX: Final = 20
CONNECT_LOG_S: Final = 5.0
"""While the broker is away, one line per so many seconds says so."""
STREAMS: Final = "streams"
"""The check of `/readyz` that fails while a stream of this service is missing."""
STORAGE: Final = "storage"
"""The check of `/readyz` that fails when the broker has stopped writing streams."""
REFUSED_LOGINS_MAX: Final = 5
GARBAGE_THRESHOLDS: Final = (50_000, 20, 100)

Build = Callable[["App"], Awaitable[None]]
Readiness = Callable[[], str | None]


class RunFile(msgspec.Struct, frozen=True):
    """`<home>/run/<instance>.json`: how others on this machine find a running service."""

    pid: int
    http: int
    service: str
    instance: str
    started_at: str


class App:
    """What a service gets to build itself from. `bus` is there once `build` is called."""

    bus: Bus
    rpc: Rpc

    def __init__(self, name: str, config: Config, *, clock: Clock | None = None, ids: Ids | None = None) -> None:
        self.name = name
        self.config = config
        self.core = config.core
        self.clock: Clock = clock or SystemClock()
        self.ids: Ids = ids or RandomIds()
        self.instance = f"{name}-{self.ids.new()[-8:].lower()}"
        self.version = version()
        self.faults = faults
        self.metrics = Metrics()
        self.log = logs.configure(name, self.instance, level=self.core.log_level, fmt=self.core.log_format)
        self.life = Lifecycle(drain_s=self.core.drain_s, grace_s=self.core.grace_s, log=self.log)
        self.health = HealthServer(checks=self._checks, metrics=self.metrics.render)
        self._readiness: dict[str, Readiness] = {}
        self._waits_for: str | None = "not started"
        self.streams = OwnStreams(name, makes=self.core.provisions, log=self.log)
        self._refused_logins = 0

    @property
    def home(self) -> Path:
        """The folder of this instance of htdag."""
        return self.core.home_path

    def handle(self, noun: str, verb: str, fn: Handler) -> None:
        """Answer one verb of `contracts.verbs`; KeyError when this service has none of that name."""
        self.rpc.handle(noun, verb, fn)

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Own a background task; its crash stops the service with an exit code that is not 0."""
        return self.life.spawn(coro, name)

    def on_ready(self, name: str, check: Readiness) -> None:
        """Add a line to `/readyz`: None is well, a text is the reason why not."""
        self._readiness[name] = check

    def on_drain(self, fn: Callable[[], Awaitable[None]]) -> None:
        """Hand over work at a soft stop, after the request verbs; the last registered goes first."""
        self.life.on_drain(fn)

    def on_stop(self, fn: Callable[[], Awaitable[None]]) -> None:
        """Close something at the end, while the broker is still connected; the last registered goes first."""
        self.life.on_stop(fn)

    async def serve(self, build: Build) -> int:
        """Live until told to stop; the exit code."""

        async def start() -> None:
            await self._start(build)

        return await self.life.run(start)

    async def _start(self, build: Build) -> None:
        telemetry.start(self.name, self.instance)
        self.metrics.set("htdag_build_info", 1, version=self.version, service=self.name)
        await self._open_health()
        client = await self._connect()
        self.bus = Bus(
            client, sync=self.core.nats_sync, log=self._bus_said, on_failure=self._bus_failed,
            on_batch=lambda stream, size: self.metrics.observe("htdag_commit_batch_size", size, stream=stream),
            on_forged=self._forged,
            on_absent=lambda _stream: self._look_at_streams(),
        )  # fmt: skip
        self.on_stop(lambda: self._close(self.bus))
        await self.bus.start()
        self._waits_for = "its streams are not there yet"
        await self.streams.at_start(self.bus)
        self.rpc = Rpc(
            client, service=self.name, version=self.version, metrics=self.metrics, log=self.log, clock=self.clock,
            ids=self.ids, metadata={"instance": self.instance},
        )  # fmt: skip
        self.on_stop(self.rpc.stop)
        self._waits_for = "the service is being built"
        await build(self)
        await self.rpc.start()
        self.on_drain(self._drain_requests)
        self._waits_for = None

    async def bus_as(self, user: str) -> Bus:
        """A second connection, with the rights of another user of `contracts.permissions`; closed at the end.

        Where there are no users with rights of their own, it is the one there is.
        """
        if self.core.nats_nkey_file is None:
            return self.bus
        client = await self._login(user, lambda: None)
        bus = Bus(client, log=self._bus_said, on_failure=self._bus_failed)
        self.on_stop(lambda: self._close(bus))
        await bus.start()
        return bus

    async def _close(self, bus: Bus) -> None:
        try:
            await bus.close()
        except (nats.errors.Error, OSError) as error:
            # nats-py sends its last bytes into a connection that may be gone: no failure of ours.
            self.log.warning("nats_closed", reason=type(error).__name__)

    async def _drain_requests(self) -> None:
        """Half of the time at most: what the service itself has to hand over needs the other half."""
        try:
            async with asyncio.timeout(self.core.drain_s / 2):
                await self.rpc.drain()
        except TimeoutError:
            self.log.warning("requests_cut", count=self.rpc.in_flight)
            await self.rpc.stop()

    async def _open_health(self) -> None:
        self.on_stop(telemetry.stop)
        self.on_stop(self.health.stop)
        port = await self.health.start(self.core.http_host, self.core.http_port_of(self.name))
        _forget_the_dead(self.home / "run")
        path = self.home / "run" / f"{self.instance}.json"
        self.on_stop(_as_hook(lambda: path.unlink(missing_ok=True)))
        _write(path, RunFile(os.getpid(), port, self.name, self.instance, rfc3339(self.clock.now_ms())))
        self.log.info("health", url=f"http://{self.core.http_host}:{port}/readyz")

    async def _connect(self) -> Client:
        self._waits_for = f"no NATS server answers at {masked(self.core.nats_url)}"
        while True:
            try:
                return await self._login(self.name, self._reconnected)
            except Rejected as error:
                if error.code != "nats_unavailable":
                    raise
                self.log.warning("nats_unavailable", url=masked(self.core.nats_url), hint=error.kind.hint)

    def _key(self, user: str) -> nkeys.KeyPair | None:
        if self.core.nats_nkey_file is None:
            return None
        place = Path(self.core.nats_nkey_file).expanduser()
        # A single file is this service's own; keys of other users stand beside it.
        beside = user != self.name and not place.is_dir()
        return nkeys.load(place.parent if beside else place, user)

    async def _login(self, user: str, on_reconnect: Callable[[], None]) -> Client:
        return await nats_client.connect(
            self.core.nats_url,
            name=self.instance,
            user=self.core.nats_user,
            password=self.core.nats_password,
            key=self._key(user),
            inbox=inbox(user),
            on_reconnect=on_reconnect,
            on_closed=self._closed,
            log=self._bus_said,
            deadline_s=CONNECT_LOG_S,
        )

    def _checks(self) -> list[Check]:
        started = self._waits_for if self.life.phase in (Phase.NEW, Phase.STARTING, Phase.READY) else None
        reason = started if self.life.phase is Phase.READY else started or self.life.phase.value
        checks = [Check("lifecycle", reason is None, reason)]
        if hasattr(self, "bus"):
            connected = self.bus.connected
            checks.append(Check("nats", connected, None if connected else "the connection is lost; trying again"))
            if self.streams.reason is not None:
                checks.append(Check(STREAMS, False, self.streams.reason))
            if stopped := self.bus.stopped:
                checks.append(Check(STORAGE, False, f"the broker stores nothing in {', '.join(stopped)}"))
        for name, check in self._readiness.items():
            reason = check()
            checks.append(Check(name, reason is None, reason))
        return checks

    def _reconnected(self) -> None:
        self._refused_logins = 0
        self.metrics.inc("htdag_nats_reconnects_total")
        self.log.info("nats_reconnected")
        if hasattr(self, "bus"):
            self.bus.reconnected()
            self._look_at_streams()

    def _look_at_streams(self) -> None:
        if self.life.phase is Phase.READY:
            _ = self.spawn(self.streams.look_again(self.bus), "own-streams")

    def _closed(self) -> None:
        if hasattr(self, "bus") and self.life.phase not in (Phase.STOPPING, Phase.STOPPED):
            self.life.kill("the NATS connection was closed for good", UNAVAILABLE)

    def _bus_failed(self, text: str) -> None:
        self.log.error("handler_failed", said=text)

    def _forged(self, stream: str, subject: str, seq: int) -> None:
        self.metrics.inc("htdag_forged_messages_total", stream=stream)
        count = int(self.metrics.value("htdag_forged_messages_total", stream=stream))
        if count > FORGED_LINES_MAX and count & (count - 1):
            return  # a flood of them must not become a flood of lines: from then on each doubling is told
        hint = "some key of this broker is in wrong hands: see `htdag doctor`"
        self.log.error("message_forged", stream=stream, subject=subject, seq=seq, count=count, hint=hint)

    def _bus_said(self, text: str) -> None:
        if "permissions violation" in text.lower():
            # Nobody is told who published; without this line it looks like silence.
            self.log.error("nats_forbidden", said=text)
            return
        self.log.debug("nats", said=text)
        if "authorization" not in text.lower() or not hasattr(self, "bus"):
            return
        # nats-py tries a refused login again for ever; nothing here can work without it.
        self._refused_logins += 1
        if self._refused_logins == REFUSED_LOGINS_MAX and self.life.phase is not Phase.STOPPING:
            self.log.error("nats_denied", url=masked(self.core.nats_url), hint=CATALOGUE["nats_denied"].hint)
            self.life.kill("NATS refuses these credentials now", CATALOGUE["nats_denied"].exit_code)


def run_service(name: str, build: Build, *, config: Config, clock: Clock | None = None) -> int:
    """Run one service in this process until it is stopped; the exit code for the shell. `clock` else the machine's.

    What is wrong before it can live (configuration, a port in use) is one line in the log and its own exit code.
    """
    os.umask(UMASK)
    faults.arm_from_environment(os.environ.get("HTDAG_FAULT"))
    with asyncio.Runner(loop_factory=event_loop.factory()) as runner:
        code = runner.run(_serve(name, build, config, clock))
        # The loop now closes its threads; one that sits in foreign code must not keep the process.
        last = threading.Timer(config.core.grace_s, os._exit, (code,))
        last.daemon = True
        last.start()
    return code


def version() -> str:
    """The version of htdag."""
    try:
        return importlib.metadata.version("htdag")
    except importlib.metadata.PackageNotFoundError:
        # A bare checkout, not installed.
        return "0.0.0"


async def _serve(name: str, build: Build, config: Config, clock: Clock | None) -> int:
    app = App(name, config, clock=clock)
    app.life.catch_signals()

    async def built(app: App) -> None:
        await build(app)
        _settle_garbage()

    return await app.serve(built)


def _settle_garbage() -> None:
    """Let the collector look at what a service made while it works, not at what it was built from, and less often.

    A run of thousands of tasks is many small, long-lived objects and almost no cycles; with the defaults they are
    walked again and again: a fifth of a busy executor's time, two thirds of a big replay's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def _as_hook(fn: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def hook() -> None:
        fn()

    return hook


def _forget_the_dead(folder: Path) -> None:
    """Remove the run files of processes that were killed: nobody else does."""
    for path in folder.glob("*.json"):
        try:
            os.kill(msgspec.json.decode(path.read_bytes(), type=RunFile).pid, 0)
        except (ProcessLookupError, msgspec.MsgspecError):
            path.unlink(missing_ok=True)
        except OSError:
            continue  # it lives under another user, or it has just removed its own file


def _write(path: Path, content: RunFile) -> None:
    """Whole or not at all: a reader never sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode(content))
        beside.replace(path)
    except OSError as error:
        raise Rejected("bad_config", f"the home cannot be written: {error.strerror}", key="core.home") from error
