"""Run one service in this process: the name is looked up here and imported only then."""

import importlib
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from contracts.errors import OK, Rejected
from services.console.home import Home
from services.console.supervision.broker import SERVICES as SERVICES_USER

SERVICES: Final[dict[str, str]] = {
    "planner": "services.planner",
    "executor": "services.executor",
    "llm-worker": "services.llm_worker",
}
"""Service name -> package, in starting order."""


def serve(name: str, home: Path | None = None, http_port: int | None = None) -> int:
    """Run the service `name` until it is told to stop; its exit code. Health is served at `http_port`, 0: any free."""
    package = SERVICES.get(name)
    if package is None:
        raise Rejected("bad_request", f"no such service: {name}", hint=f"there are {', '.join(SERVICES)}")
    try:
        service = importlib.import_module(f"{package}.service")
        app = importlib.import_module("services.runtime.app")
        config = importlib.import_module("services.runtime.config")
    except ModuleNotFoundError as error:
        raise Rejected("missing_dependency", f"{name} cannot be loaded: {error}", name=error.name or "") from error
    flags: dict[str, Any] = {"core.home": str(home.expanduser().absolute())} if home is not None else {}
    flags |= _broker_of(Home.locate(home))
    if http_port is not None:
        flags["core.http_port"] = _first_port(config, name, http_port)
    code: Any = app.run_service(name, service.build, config=config.Config.load(flags))
    return int(code or OK)


def _first_port(config: Any, name: str, http_port: int) -> int:
    """The start of the block of health ports in which `name` has `http_port`."""
    place = int(config.Core(http_port=config.HTTP_PORT_BASE).http_port_of(name)) - int(config.HTTP_PORT_BASE)
    if http_port and http_port <= place:
        raise Rejected("bad_request", f"the health port of {name} must be 0 or above {place}", requested=http_port)
    return http_port - place if http_port else 0


def _broker_of(home: Home) -> dict[str, str]:
    """Where the instance of this home has its broker, when one runs there and nothing else was said."""
    record = home.record()
    if os.environ.get("NATS_URL") or os.environ.get("HTDAG_CORE__NATS_URL") or record is None or not record.running:
        return {}
    parts = urlsplit(record.operator_url)
    os.environ.setdefault("NATS_USER", SERVICES_USER)
    os.environ.setdefault("NATS_PASSWORD_FILE", str(home.keys / SERVICES_USER))
    return {"core.nats_url": f"nats://{parts.hostname}:{parts.port}"}


def load_sections(config: Any) -> None:
    """Read the configuration section of every service that is installed, so that all of it can be shown."""
    for package in SERVICES.values():
        try:
            module = importlib.import_module(f"{package}.config")
        except ModuleNotFoundError:
            continue  # this installation does not have that service
        config.section(package.rpartition(".")[2], module.Config)
