"""Run one service in this process: the name is looked up here and imported only then."""

import importlib
from pathlib import Path
from typing import Any, Final

from contracts.errors import OK, Rejected

SERVICES: Final[dict[str, str]] = {
    "planner": "services.planner",
    "executor": "services.executor",
    "llm-worker": "services.llm_worker",
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
    code: Any = app.run_service(name, service.build, config=config.Config.load(flags))
    return int(code or OK)


def load_sections(config: Any) -> None:
    """Read the configuration section of every service that is installed, so that all of it can be shown."""
    for package in SERVICES.values():
        try:
            module = importlib.import_module(f"{package}.config")
        except ModuleNotFoundError:
            continue  # this installation does not have that service
        config.section(package.rpartition(".")[2], module.Config)
