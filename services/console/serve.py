"""Run one service in this process: the name is looked up here and imported only then."""

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from contracts.errors import OK, Rejected
from services.console.home import Home
from services.runtime import environment

SERVICES: Final[dict[str, str]] = {
    "planner": "services.planner",
    "policy-gateway": "services.policy_gateway",
    "executor": "services.executor",
    "llm-worker": "services.llm_worker",
    "identity": "services.identity",
}
"""Service name -> package, in starting order."""


def serve(name: str, home: Path | None = None, http_port: int | None = None) -> int:
    """Run the service `name` until it is told to stop; its exit code. Health is served at `http_port`, 0: any free."""
    package = SERVICES.get(name)
    if package is None:
        raise Rejected("bad_request", f"no such service: {name}", hint=f"there are {', '.join(SERVICES)}")
    environment.begin_without_others(name)
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
    if record.broker is not None and "NATS_USER" not in os.environ:
        os.environ.setdefault("NATS_NKEY", str(home.keys))
    return {"core.nats_url": f"nats://{parts.hostname}:{parts.port}"}


def load_sections(config: Any, names: Iterable[str] = tuple(SERVICES), *, check: bool = False) -> list[str]:
    """Read the configuration section of each service that is installed; what they warn of. Raises bad_config.

    With `check` also what a service itself finds wrong with it, by the `check` of its config module, if it has one.
    """
    warnings: list[str] = []
    for name in names:
        package = SERVICES[name]
        try:
            module = importlib.import_module(f"{package}.config")
        except ModuleNotFoundError:
            continue  # this installation does not have that service
        section = config.section(getattr(module, "SECTION", package.rpartition(".")[2]), module.Config)
        if check and hasattr(module, "check"):
            module.check(section)
        warnings += section.warnings() if hasattr(section, "warnings") else []
    return warnings
