"""How the state of an instance is shown: as the public JSON, as a table, and live on a terminal."""

from pathlib import Path
from typing import Any, Final

from services.console import local_identity
from services.console.home import Home, InstanceRecord, ServiceRecord
from services.console.output import Output, columns, size
from services.console.processes import alive, rss_bytes
from services.console.serve import SERVICES
from services.console.supervision.scale import services_of
from services.runtime.redaction import masked

HEADERS = ("SERVICE", "STATE", "PID", "HTTP", "RSS", "RESTARTS")
WITHOUT: Final = {
    "planner": "goals, tasks, epics and strategies are refused; a plan with agents needs `--strategy none`",
    "policy-gateway": "agents have no tools: calls wait until their task's deadline",
    "executor": "no run begins and none goes on",
    "llm-worker": "no model answers: tasks that ask one wait, then fail with llm_unavailable",
    "identity": "nobody can prove who he is: no log-in, no approval",
}
"""What does not work in an instance that leaves a service out."""


def absent(record: InstanceRecord) -> dict[str, str]:
    """The services that this instance was started without, and what does not work therefore."""
    here = services_of(record.services)
    return {name: WITHOUT.get(name, "what it does is refused") for name in SERVICES if name not in here}


def document(record: InstanceRecord) -> dict[str, Any]:
    """The public JSON of an instance, as `up -d --json` and `ps --json` print it."""
    entries = {name: _entry(service) for name, service in record.services.items()}
    if "identity" in entries:
        home = Home(Path(record.home))
        entries["identity"] |= {"auth_url": local_identity.address(home), "set_up_links": local_identity.links(home)}
    broker = {"broker": _entry(record.broker)} if record.broker else {}
    return {
        "home": record.home,
        "mode": record.mode,
        "operator_url": record.operator_url,
        "supervisor": {"pid": record.supervisor.pid},
        "services": entries,
        **broker,
    }


def rows(record: InstanceRecord, output: Output) -> list[tuple[object, ...]]:
    """One row per process."""
    named = {**({"nats": record.broker} if record.broker else {}), **record.services}
    return [
        (
            name,
            output.state(state_of(service)),
            service.process.pid or None,
            service.http,
            size(rss_bytes(service.process.pid)) if alive(service.process) else None,
            service.restarts,
        )
        for name, service in named.items()
    ]


def document_of_all(record: InstanceRecord) -> dict[str, Any]:
    """The public JSON of `ps`: also the services that were left out, as `absent`."""
    found = document(record)
    nothing = {"pid": None, "http": None, "state": "absent", "restarts": 0, "rss_bytes": 0}
    found["services"] |= {name: {**nothing, "without": lost} for name, lost in absent(record).items()}
    return found


def table_of_all(record: InstanceRecord, output: Output) -> str:
    """The table of `ps`: below it what was left out, and what does not work therefore."""
    return "\n".join([table(record, output), *(f"{name} absent: {lost}" for name, lost in absent(record).items())])


def table(record: InstanceRecord, output: Output) -> str:
    """The instance as text: where it is, then one line per process."""
    who = f"{record.mode}, supervisor pid {record.supervisor.pid}"
    head = f"home {record.home}   broker {masked(record.operator_url)}   {who}"
    links = [f"\nset up {name}: {link}" for name, link in local_identity.links(Home(Path(record.home))).items()]
    return head + "\n" + columns(HEADERS, rows(record, output)) + "".join(links)


def state_of(service: ServiceRecord) -> str:
    """The recorded state, corrected by what the process table says now."""
    if service.state in ("ready", "starting") and not alive(service.process):
        return "dead"
    return service.state


def _entry(service: ServiceRecord) -> dict[str, Any]:
    return {
        "pid": service.process.pid or None,
        "http": service.http,
        "state": state_of(service),
        "restarts": service.restarts,
        "rss_bytes": rss_bytes(service.process.pid) if alive(service.process) else 0,
    }
