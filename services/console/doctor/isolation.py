"""What each running service holds beside its work: secrets of others, programs, connections. Read from /proc."""

import contextlib
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from services.console.doctor.finding import Finding
from services.console.home import Home
from services.console.processes import alive
from services.console.supervision.scale import service_of
from services.runtime import telemetry
from services.runtime.environment import foreign

SCALER: Final = "scaler"
CONFINED: Final = frozenset({"planner", "executor", "identity"})
"""Services that speak to the broker only, and start nothing but Lua children."""
_BROKERS: Final = ("nats", "HTDAG_OPERATOR_PASSWORD")
"""The broker of a server that somebody set up by hand is told the operator's password."""
_ESTABLISHED: Final = "01"
_LISTENS: Final = "0A"


class Connection(NamedTuple):
    """One TCP socket of a process, as /proc shows it."""

    state: str
    local_port: int
    remote_port: int


def isolation(home: Home) -> list[Finding]:
    """One finding for each running service of this home, for its broker, and for what keeps the number of copies."""
    record = home.record()
    if record is None or not record.running:
        return [Finding("isolation", "note", "nothing of this home runs here", "`htdag up -d`")]
    broker_port = urlsplit(record.operator_url).port or 0
    found = []
    for name, service in sorted(record.services.items()):
        if alive(service.process):
            found.append(_service(name, service.process.pid, broker_port))
    if record.broker is not None and alive(record.broker.process):
        found.append(_told("nats", _secrets("nats", record.broker.process.pid), "no secret of a service"))
    found += [_told(SCALER, _secrets(SCALER, pid), "no secret of a service") for pid in _scalers(record.supervisor.pid)]
    return found


def _service(name: str, pid: int, broker_port: int) -> Finding:
    service = service_of(name)
    wrong = _secrets(service, pid)
    good = "no secret of another service"
    if service in CONFINED:
        collector = _collector(pid)
        traces = "" if collector is None else " and the collector of traces"
        good += f"; speaks to the broker{traces} only; runs nothing but Lua children"
        wrong += [f"it runs {program}" for program in sorted(set(_programs(pid)))]
        wrong += [f"it is connected to port {port}" for port in sorted(set(_elsewhere(pid, {broker_port, collector})))]
    return _told(name, wrong, good)


def _told(name: str, wrong: list[str], good: str) -> Finding:
    if not wrong:
        return Finding(name, "ok", good)
    return Finding(name, "fail", "; ".join(wrong), f"`htdag down`, then `htdag up -d`; what started {name} otherwise?")


def _secrets(name: str, pid: int) -> list[str]:
    try:
        names = dict.fromkeys(_environment(pid), "")
    except OSError as error:
        return [f"its environment cannot be read: {error.strerror}"]
    return [f"its environment holds {one}" for one in foreign(name, names) if (name, one) != _BROKERS]


def _collector(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return telemetry.collector_port(_environment(pid))
    return None


def _environment(pid: int) -> dict[str, str]:
    """What a process was started with. Raises OSError."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace").split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries) if name}


def _programs(pid: int) -> Iterator[str]:
    """What runs below it, but its Lua children: Python in a box, where one can be built."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text(encoding="ascii").split():
                program = Path(f"/proc/{child}/exe").readlink().name
                if program != "bwrap" and not program.startswith("python"):
                    yield program


def _scalers(supervisor: int) -> Iterator[int]:
    """The program under supervisord that keeps the number of copies."""
    for task in Path(f"/proc/{supervisor}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text(encoding="ascii").split():
                if Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").endswith(b"\0scale"):
                    yield int(child)


def _elsewhere(pid: int, known: Container[int | None]) -> Iterator[int]:
    """Ports of connections that it made to something else than the ports it may speak to."""
    sockets = list(_connections(pid))
    served = {one.local_port for one in sockets if one.state == _LISTENS}
    for one in sockets:
        if one.state == _ESTABLISHED and one.local_port not in served and one.remote_port not in known:
            yield one.remote_port


def _connections(pid: int) -> Iterator[Connection]:
    inodes = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it is closed by now
                inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[9] in inodes:
                    local, remote = (int(place.rpartition(":")[2], 16) for place in words[1:3])
                    yield Connection(words[3], local, remote)
