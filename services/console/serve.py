"""Run one service in this process: the name is looked up here and imported only then."""

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from contracts.errors import OK, Rejected
from services.console.home import Home

SERVICES: Final[dict[str, str]] = {
    "planner": "services.planner",
    "policy-gateway": "services.policy_gateway",
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
    if record.broker is not None and "NATS_USER" not in os.environ:
        os.environ.setdefault("NATS_NKEY", str(home.keys))
    return {"core.nats_url": f"nats://{parts.hostname}:{parts.port}"}


def load_sections(config: Any, names: Iterable[str] = tuple(SERVICES), *, check: bool = False) -> None:
    """Read the configuration section of each service that is installed. Raises Rejected("bad_config").

    With `check` also what a service itself finds wrong with it, by the `check` of its config module, if it has one.
    """
    for name in names:
        package = SERVICES[name]
        try:
            module = importlib.import_module(f"{package}.config")
        except ModuleNotFoundError:
            continue  # this installation does not have that service
        section = config.section(getattr(module, "SECTION", package.rpartition(".")[2]), module.Config)
        if check and hasattr(module, "check"):
            module.check(section)
