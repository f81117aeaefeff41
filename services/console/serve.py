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
    "identity": "services.identity",
}
"""Service name -> package, in starting order."""


def serve(name: str, home: Path | None = None) -> int:
    """Run the service `name` until it is told to stop; its exit code."""
    package = SERVICES.get(name)
    if package is None:
        raise Rejected("bad_request", f"no such service: {name}", hint=f"there are {', '.join(SERVICES)}")
    try:
        service = importlib.import_module(f"{package}.service")
        app = importlib.import_module("services.runtime.app")
        config = importlib.import_module("services.runtime.config")
    except ModuleNotFoundError as error:
        raise Rejected("missing_dependency", f"{name} cannot be loaded: {error}", name=error.name or "") from error
    flags = {"core.home": str(home.expanduser().absolute())} if home is not None else {}
    flags |= _broker_of(Home.locate(home))
    code: Any = app.run_service(name, service.build, config=config.Config.load(flags))
    return int(code or OK)


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
