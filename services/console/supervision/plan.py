"""What one `up` is to run: which services, with which environment, and how each is started."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from services.console.home import Home
from services.console.serve import SERVICES, load_sections
from services.console.supervision.broker import DEFAULT_PORT, EmbeddedBroker, Sync
from services.console.supervision.child import ChildSpec
from services.console.supervision.scale import Wishes, service_of
from services.runtime.environment import own

BROKER: Final = "nats"
READY_S: Final = 60.0
MARK: Final = "HTDAG_UP"
"""Stands in the environment of what `up` starts, and of nothing else: the home it was started for."""
FALLBACK_MODELS: Final = ("claude-sonnet-4.5", "gemini-2.5-pro", "gemini-1.5-flash")
"""The models that strategies and the fallback name; `--model` makes another one answer for them."""

_OURS: Final = ("HTDAG_", "NATS_")
_PROGRAMS: Final = ("HTDAG_NATS_SERVER",)
LIMITS_LIFTED: Final = json.dumps({"usd_per_day": 0, "requests_per_minute": 0, "concurrent": 0})


@dataclass(frozen=True)
class UpPlan:
    """The wishes of one `up`. Port 0 means any free one; `model` answers for the models that strategies name."""

    services: tuple[str, ...] = tuple(SERVICES)
    port: int = DEFAULT_PORT
    sync: Sync = "always"
    model: str | None = None
    scale: Wishes = field(default_factory=dict)
    """How many copies of a service; one when nothing is said."""
    embedded: bool = False
    """Start a broker of its own even when NATS_URL names one."""
    test_clock: Path | None = None
    """A file of epoch seconds from which identity takes the time; for tests only."""
    limits_lifted: bool = False
    """Limit no LLM call: for instances that are thrown away."""
    settings: Mapping[str, str] | None = None
    """What the services are told in place of all that this process's environment says to htdag; None is just that."""


def chosen_services(only: str | None) -> tuple[str, ...]:
    """The services named by `--only a,b` in starting order; all when nothing is named."""
    if only is None:
        return tuple(SERVICES)
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in SERVICES]
    if unknown or not wanted:
        raise Rejected(
            "bad_request",
            f"no such service: {', '.join(unknown) or '(none named)'}",
            hint=f"there are {', '.join(SERVICES)}",
        )
    return tuple(name for name in SERVICES if name in wanted)


def program() -> Path:
    """The console script `htdag` of this installation."""
    beside = Path(sys.executable).with_name("htdag")
    found = str(beside) if beside.exists() else shutil.which("htdag")
    if not found:
        raise Rejected("missing_dependency", "the program htdag is not installed", hint="`pip install -e .`")
    return Path(found)


def environment(home: Home, broker: EmbeddedBroker | None, plan: UpPlan) -> dict[str, str]:
    """What all services are given. Secrets stand here or in files, never in an argument list; `service_specs` leaves
    out of it what is not for a service.
    """
    env = dict(os.environ) if plan.settings is None else {**without_settings(os.environ), **plan.settings}
    # An agent's workspace may hold its own `services/`: never import from the working folder.
    env |= {"HTDAG_HOME": str(home.root), MARK: str(home.root), "PYTHONSAFEPATH": "1", "HTDAG_CORE__HTTP_PORT": "0"}
    if broker is not None:
        # Each service finds its own seed in the folder.
        env |= {"NATS_URL": broker.url, "NATS_NKEY": str(broker.keys), "HTDAG_CORE__NATS_SYNC": plan.sync}
        for name in ("NATS_USER", "NATS_PASSWORD", "NATS_PASSWORD_FILE"):
            env.pop(name, None)
    if plan.test_clock is not None:
        env["HTDAG_IDENTITY__TEST_CLOCK"] = str(plan.test_clock)
    if plan.model is not None:
        env["HTDAG_LLM_WORKER__ALIASES"] = json.dumps(dict.fromkeys(FALLBACK_MODELS, plan.model))
    if plan.limits_lifted:
        env["HTDAG_LLM_WORKER__LIMITS"] = LIMITS_LIFTED
    return env


def without_settings(env: Mapping[str, str]) -> dict[str, str]:
    """An environment that says nothing to htdag, but which program the broker is."""
    return {name: value for name, value in env.items() if name in _PROGRAMS or not name.startswith(_OURS)}


def check_configuration(home: Home, plan: UpPlan) -> list[str]:
    """Read what every service of the plan will read, before anything is started; what must be said loudly of it.

    Raises Rejected("bad_config").
    """
    from services.runtime.config import Config

    config = Config.load({"core.home": str(home.root)}, env=environment(home, None, plan))
    _ = config.core
    return load_sections(config, plan.services, check=True)


def service_specs(home: Home, names: Sequence[str], env: dict[str, str]) -> list[ChildSpec]:
    """How to start each service."""
    binary = str(program())
    return [
        ChildSpec(name, (binary, "serve", service_of(name)), own(service_of(name), env), home.logs / f"{name}.log")
        for name in names
    ]


def broker_spec(home: Home, broker: EmbeddedBroker) -> ChildSpec:
    """How to start the embedded broker; its argument list holds only the path of its configuration."""
    argv = (str(broker.program), "-c", str(broker.conf))
    return ChildSpec(BROKER, argv, own(BROKER, os.environ), home.logs / f"{BROKER}.log")
