"""`htdag up -d`: the instance under supervisord, with the conf that operators use (infra/supervisor)."""

import asyncio
import http.client
import os
import sys
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from contracts.errors import Rejected
from services.console.home import Home, InstanceRecord, ServiceRecord
from services.console.processes import Process, ended, identify, stop
from services.console.supervision.broker import EmbeddedBroker, greeting, provision
from services.console.supervision.fleet import BROKER_START_S
from services.console.supervision.foreground import find_broker
from services.console.supervision.hung import POOL
from services.console.supervision.last_words import last_words
from services.console.supervision.plan import BROKER, READY_S, UpPlan, check_configuration, environment, program
from services.console.supervision.readiness import probe
from services.console.supervision.scale import Wishes, expanded, remember, service_of, services_of, wished
from services.console.supervision.strays import TERM_S, strays, sweep

SUPERVISOR_START_S: Final = 10.0
STOP_S: Final = 60.0
_SOCKET_PATH_BYTES_MAX: Final = 98
_POLL_S: Final = 0.1
_PATIENCE_S: Final = 15.0
"""supervisord tries for ever; whoever waits for `up` is told after five tries in a row."""
SCALER: Final = "scaler"
"""The program that keeps the number of copies, and ends workers that hang (`htdag scale`)."""
RUNS: Final = frozenset({"STARTING", "RUNNING", "BACKOFF"})
_STATES: Final = {
    "RUNNING": "starting",
    "STARTING": "starting",
    "BACKOFF": "backoff",
    "FATAL": "failed",
    "STOPPED": "stopped",
    "EXITED": "stopped",
    "STOPPING": "stopped",
    "UNKNOWN": "failed",
}


def configuration() -> Path:
    """The shipped supervisord.conf: of the checkout, else of the installed package."""
    services = Path(__file__).resolve().parents[2]
    for folder in (services.parent / "infra", services / "infra"):
        conf = folder / "supervisor" / "supervisord.conf"
        if conf.is_file():
            return conf
    raise Rejected(
        "missing_dependency", "infra/supervisor/supervisord.conf is not installed", hint="install htdag again"
    )


class Supervisor:
    """supervisord of one home, by its socket. Calls are local and quick; they run in a thread all the same."""

    def __init__(self, home: Home) -> None:
        self._path = str(home.supervisor_socket)

    async def call(self, method: str, *arguments: Any) -> Any:
        """One XML-RPC call; raises Rejected("not_running") when nobody answers."""
        return await asyncio.to_thread(self._call, method, *arguments)

    async def processes(self) -> dict[str, dict[str, Any]]:
        """What supervisord knows of each program, by name."""
        return {info["name"]: info for info in await self.call("supervisor.getAllProcessInfo")}

    async def start(self, name: str) -> None:
        """Start a program unless it runs."""
        info = (await self.processes()).get(name)
        if info is None:
            raise Rejected("bad_config", f"supervisord.conf has no program {name}")
        if info["statename"] not in RUNS:
            await self.call("supervisor.startProcess", _full_name(info), False)

    async def stop(self, name: str, *, wait: bool = False) -> None:
        """Stop a program for good; returns at once unless it is to wait for the end."""
        info = (await self.processes()).get(name)
        if info is None or info["statename"] not in RUNS:
            return
        try:
            await self.call("supervisor.stopProcess", _full_name(info), wait)
        except Rejected as error:
            if error.code != "internal":
                raise
            # it has ended meanwhile

    def _call(self, method: str, *arguments: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._path}")  # type: ignore[no-untyped-call]
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport, allow_none=True) as proxy:
                return getattr(proxy, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise Rejected("internal", f"supervisord refuses {method}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException) as error:
            raise Rejected("not_running", "supervisord does not answer") from error


async def up(home: Home, plan: UpPlan, *, deadline_s: float = READY_S) -> InstanceRecord:
    """Start the instance and return when all of it is ready; nothing is left running when that fails."""
    if len(os.fsencode(home.supervisor_socket)) > _SOCKET_PATH_BYTES_MAX:
        raise Rejected("bad_config", "the path of this home is too long for a socket", hint="choose a shorter --home")
    running = home.record()
    if running is not None and running.running and running.mode == "background":
        with home.lock(of_running=True):
            return await _start_again(home, running, plan, deadline_s)
    conf = configuration()
    check_configuration(home, plan)
    with home.lock():
        await sweep(home)
        broker, url = await find_broker(home, plan)
        env = environment(home, broker, plan) | {
            "HTDAG_BIN": str(program()),
            "HTDAG_NATS_SERVER": str(broker.program) if broker else "",
            "HTDAG_NATS_CONF": str(home.nats_conf),
            "HTDAG_AUTOSTART": "false",
        }
        names = [*([BROKER] if broker else []), *expanded(plan.services, plan.scale)]
        remember(home, plan.scale)
        supervisor = await _start_supervisor(home, conf, env)
        record = InstanceRecord(str(home.root), "background", supervisor, url)
        home.write_record(record)
        try:
            ready = await _start_programs(home, record, names, deadline_s, broker)
            if plan.scale or POOL in plan.services:
                await Supervisor(home).start(SCALER)
        except BaseException:
            await down(home, record)
            raise
        return ready


async def current(home: Home, record: InstanceRecord) -> InstanceRecord:
    """The record with what supervisord and the services say now."""
    infos = await Supervisor(home).processes()
    fresh: dict[str, ServiceRecord] = {}
    known = [BROKER, *record.services]
    here = services_of(record.services)
    added = [name for name in infos if name not in known and service_of(name) in here]
    for name in [*known, *sorted(added)]:
        info = infos.get(name)
        old = record.broker if name == BROKER else record.services.get(name)
        if info is None or _let_go(name, infos) or (old is None and info["statename"] not in RUNS):
            continue
        fresh[name] = await _service(home, name, info, old)
    broker = fresh.pop(BROKER, None)
    return InstanceRecord(record.home, "background", record.supervisor, record.operator_url, broker, fresh)


def _let_go(name: str, infos: Mapping[str, dict[str, Any]]) -> bool:
    """Whether this is a copy that was one too many: it was stopped, and others of its service run.

    The first copy alone is the service itself, and is shown however it is.
    """
    if name not in infos or infos[name]["statename"] in RUNS | {"FATAL"}:
        return False
    service = service_of(name)
    others = [other for other in infos if other != name and service_of(other) == service]
    return name != service or any(infos[other]["statename"] in RUNS for other in others)


async def down(home: Home, record: InstanceRecord) -> list[Process]:
    """Drain and end everything; what is left after the deadline is killed. The processes that even that left."""
    supervisor = Supervisor(home)
    try:
        await _drain(supervisor, record)
        await supervisor.call("supervisor.shutdown")
    except Rejected:
        pass  # it does not answer: then it is ended by signal below
    else:
        await ended([record.supervisor], STOP_S)
    left = await stop([record.supervisor], term_s=5.0) + await stop(strays(home), term_s=TERM_S)
    if not left:
        home.instance_file.unlink(missing_ok=True)
    return left


async def _drain(supervisor: Supervisor, record: InstanceRecord) -> None:
    """End the services side by side, while the broker is there: supervisord itself would drain one after another."""
    # Whoever keeps their number first, or it would start anew what stops.
    await supervisor.stop(SCALER, wait=True)
    services = services_of(record.services)
    mine = [name for name in await supervisor.processes() if service_of(name) in services]
    for name in mine:
        await supervisor.stop(name)
    loop = asyncio.get_running_loop()
    end = loop.time() + STOP_S
    while loop.time() < end:
        infos = await supervisor.processes()
        if not any(infos[name]["pid"] for name in mine):
            return
        await asyncio.sleep(_POLL_S)


async def rescale(home: Home, record: InstanceRecord, wishes: Wishes, deadline_s: float) -> InstanceRecord:
    """Change the numbers of copies of a running instance, and wait until they are as wished and ready."""
    here = services_of(record.services)
    strange = sorted(set(wishes) - here)
    if strange:
        raise Rejected("bad_request", f"this instance runs no {', '.join(strange)}", hint="start it without --only")
    remember(home, {**wished(home), **wishes})
    if record.mode == "background":
        await Supervisor(home).start(SCALER)
    end = asyncio.get_running_loop().time() + deadline_s
    while True:
        record = await current(home, record) if record.mode == "background" else home.running()
        states: dict[str, list[str]] = {}
        for name, service in record.services.items():
            states.setdefault(service_of(name), []).append(service.state)
        if record.mode == "background":
            home.write_record(record)
        if all(
            bounds.least <= len(states.get(service, ())) <= bounds.most and set(states[service]) == {"ready"}
            for service, bounds in wishes.items()
        ):
            return record
        if asyncio.get_running_loop().time() > end:
            raise Rejected(
                "service_unavailable", "the copies are not as wished yet", states=states, hint="look again: `htdag ps`"
            )  # fmt: skip
        await asyncio.sleep(_POLL_S)


def _full_name(info: dict[str, Any]) -> str:
    return f"{info['group']}:{info['name']}"


async def _start_supervisor(home: Home, conf: Path, env: dict[str, str]) -> Process:
    argv = [sys.executable, "-m", "supervisor.supervisord", "-c", str(conf)]
    starter = await asyncio.create_subprocess_exec(
        *argv,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SUPERVISOR_START_S):
            said, _ = await starter.communicate()
            if starter.returncode:
                raise Rejected(
                    "bad_config", f"supervisord refuses {conf.name}: {said.decode(errors='replace').strip()}"
                )
            while True:
                try:
                    return identify(await Supervisor(home).call("supervisor.getPID"))
                except Rejected:
                    await asyncio.sleep(_POLL_S)
    except TimeoutError:
        if starter.returncode is None:
            starter.kill()
        raise Rejected("internal", "supervisord does not start", hint=f"look at {home.logs}/supervisord.log") from None


async def _start_again(home: Home, record: InstanceRecord, plan: UpPlan, deadline_s: float) -> InstanceRecord:
    """Start what the plan names and does not run in a running instance; raises already_running when all of it does."""
    supervisor = Supervisor(home)
    infos = await supervisor.processes()
    # Copies are the scaler's to start.
    services = [*dict.fromkeys([*map(service_of, record.services), *plan.services])]
    names = [*([BROKER] if record.broker else []), *(name for name in services if not _let_go(name, infos))]
    resting = [name for name in names if name in infos and infos[name]["statename"] not in ("RUNNING", "STARTING")]
    if not resting:
        raise Rejected("already_running", home=str(home.root), pid=record.supervisor.pid)
    for name in resting:
        if infos[name]["statename"] == "BACKOFF":
            await supervisor.stop(name, wait=True)  # else it would go on waiting for its next try
    if wished(home) or POOL in services:
        await supervisor.start(SCALER)
    return await _start_programs(home, record, names, deadline_s, None)


async def _start_programs(
    home: Home, record: InstanceRecord, names: list[str], deadline_s: float, broker: EmbeddedBroker | None
) -> InstanceRecord:
    """Start each program and wait until all are ready; supervisord itself restarts what falls."""
    supervisor = Supervisor(home)
    known = await supervisor.processes()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Rejected("bad_config", f"supervisord.conf has no program {', '.join(unknown)}")
    for name in names:
        if known[name]["statename"] not in RUNS:
            await supervisor.call("supervisor.startProcess", _full_name(known[name]), False)
        if name == BROKER and broker is not None:
            await _make_streams(home, broker)
    record = InstanceRecord(
        record.home,
        record.mode,
        record.supervisor,
        record.operator_url,
        record.broker or (ServiceRecord(Process(0, 0)) if BROKER in names else None),
        {
            name: record.services.get(name, ServiceRecord(Process(0, 0)))
            for name in (*names, *record.services)
            if name != BROKER
        },
    )
    loop = asyncio.get_running_loop()
    end, patient_until = loop.time() + deadline_s, loop.time() + _PATIENCE_S
    while True:
        record = await current(home, record)
        home.write_record(record)
        services = {**({BROKER: record.broker} if record.broker else {}), **record.services}
        waiting = {name: service for name, service in services.items() if service.state != "ready"}
        if not waiting:
            return record
        hopeless = ("failed", "backoff") if loop.time() > patient_until else ("failed",)
        if loop.time() > end or any(service.state in hopeless for service in waiting.values()):
            raise await _why_not(home, waiting)
        await asyncio.sleep(_POLL_S)


async def _make_streams(home: Home, broker: EmbeddedBroker) -> None:
    """Wait for the broker, then make the streams: no service has the right to."""
    end = asyncio.get_running_loop().time() + BROKER_START_S
    while True:
        try:
            await greeting(broker.url, timeout_s=1.0)
        except Rejected as error:
            if asyncio.get_running_loop().time() > end:
                words = last_words(home.logs / f"{BROKER}.log")
                raise Rejected("nats_unavailable", f"the embedded broker does not start{words}") from error
            await asyncio.sleep(_POLL_S)
        else:
            break
    await provision(broker)


async def _service(home: Home, name: str, info: dict[str, Any], old: ServiceRecord | None) -> ServiceRecord:
    state = _STATES.get(info["statename"], "failed")
    process = identify(info["pid"]) if info["pid"] else Process(0, 0)
    # supervisord does not count restarts: a pid that changed since the last look is one.
    last_pid = old.last_pid if old else 0
    restarts = (old.restarts if old else 0) + int(bool(last_pid and process.pid and process.pid != last_pid))
    last_pid = process.pid or last_pid
    if state != "starting":
        return ServiceRecord(process, None, state, restarts, last_pid)
    if name == BROKER:
        ready = info["statename"] == "RUNNING"
        return ServiceRecord(process, None, "ready" if ready else "starting", restarts, last_pid)
    found = await probe(home.run, service_of(name), process.pid)
    return ServiceRecord(process, found.http, "ready" if found.ready else "starting", restarts, last_pid)


async def _why_not(home: Home, waiting: dict[str, ServiceRecord]) -> Rejected:
    reasons: dict[str, str] = {}
    for name, service in waiting.items():
        why = (await probe(home.run, service_of(name), service.process.pid)).reason if service.process.pid else ""
        reasons[name] = f"{service.state}: {why}".rstrip(": ") + last_words(home.logs / f"{name}.log")
    return Rejected(
        "service_unavailable",
        f"not ready: {', '.join(waiting)}",
        hint=f"look at the logs in {home.logs}",
        services=reasons,
    )
