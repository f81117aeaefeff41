"""In this process: what the console itself refuses, asked in a folder that is removed."""

import socket
from pathlib import Path
from typing import Final

from services.console.conformance.errors.scenario import Scenario, Sight
from services.console.connection import bus_at
from services.console.home import Home
from services.console.supervision.broker import claim_port, free_port
from services.console.supervision.child import Child, ChildSpec
from services.console.supervision.plan import UpPlan, check_configuration

UNREADABLE: Final = {"HTDAG_POLICY__CALLS_LIGHT": "many"}


async def _homes(folder: Path, sight: Sight) -> None:
    home = Home(folder / "home")
    home.prepare()
    sight.raised("not_running", home.running, "`htdag ps` in a home where nothing runs")
    with home.lock():
        sight.raised("already_running", lambda: home.lock().__enter__(), "a second `htdag up` of one home")
    plan = UpPlan(settings=UNREADABLE)
    sight.raised("bad_config", lambda: check_configuration(home, plan), "`htdag up` with policy.calls_light = many")


async def _ports(folder: Path, sight: Sight) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sight.raised("port_in_use", lambda: claim_port(taken.getsockname()[1]), "`htdag up` on a port that is taken")
    await sight.refused("nats_unavailable", _enter(f"nats://127.0.0.1:{free_port()}"), "a connection to nobody")


async def _enter(url: str) -> None:
    async with bus_at(url):
        return


async def _programs(folder: Path, sight: Sight) -> None:
    missing = ChildSpec("missing", (str(folder / "no-such-program"),), {}, folder / "missing.log")
    await sight.refused(
        "missing_dependency", _life(Child(missing, lambda: None)), "`htdag up` without one of its programs"
    )


async def _life(child: Child) -> None:
    try:
        await child.run()
    finally:
        await child.stop(grace_s=0.0)


CONSOLE: Final = (
    Scenario(("not_running", "already_running", "bad_config"), _homes),
    Scenario(("port_in_use", "nats_unavailable"), _ports),
    Scenario(("missing_dependency",), _programs),
)
