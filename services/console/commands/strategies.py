"""`htdag strategies`: the Lua that decides how to decompose, whom to spawn, how to work and when it is done."""

from pathlib import Path
from typing import Any

from cyclopts import App

from contracts.errors import Rejected
from services.console import input_file
from services.console.board_text import shorten
from services.console.connection import connected
from services.console.options import DEFAULTS, Common
from services.console.output import columns, plain
from services.console.strategy_file import read_strategy

app = App(
    name="strategies",
    help="Lua strategies: store, try, activate, roll back.\n\nFor example:\n    htdag strategies list",
    help_format="plaintext",
)


@app.command(name="list")
async def list_(*, common: Common = DEFAULTS) -> None:
    """List all strategies; version 0 means that none is active.

    For example:
        htdag strategies list
    """
    async with connected(common) as console:
        strategies = plain(await console.call("planner.strategy.list", {}))
    rows = [
        (
            f"{strategy['name']}@{strategy['version']}",
            strategy["pattern"],
            strategy["priority"],
            ",".join(strategy["scripts"]),
            shorten(strategy["description"], 40),
        )
        for strategy in strategies
    ]
    common.output.value(
        strategies, lambda _: columns(("STRATEGY", "PATTERN", "PRIORITY", "SCRIPTS", "DESCRIPTION"), rows)
    )


@app.command
async def show(name: str, /, *, version: int | None = None, common: Common = DEFAULTS) -> None:
    """Print a strategy with its scripts: the active version, or the one named.

    For example:
        htdag strategies show standard

    Parameters
    ----------
    name
        The strategy.
    version
        The version; the active one when none is named.
    """
    async with connected(common) as console:
        stored = plain(await console.call("planner.strategy.get", _ref(name, version)))
    common.output.value(stored, lambda _: _source_text(stored))


@app.command
async def put(
    path: Path,
    /,
    *,
    name: str | None = None,
    stage: str | None = None,
    pattern: str | None = None,
    priority: int | None = None,
    description: str | None = None,
    common: Common = DEFAULTS,
) -> None:
    """Store a new version and make it the active one: a .lua file, a directory of
    them, or a .toml file.

    Scripts that are left out are taken from the version before. Broken or
    forbidden Lua is refused and changes nothing.

    For example:
        htdag strategies put secure.toml
        htdag strategies put decomposition.lua --name secure --pattern "auth|payment" --priority 10

    Parameters
    ----------
    path
        The file or directory.
    name
        Name of the strategy; else that of the file.
    stage
        decomposition, agent_spawning, orchestration or completion, for a single script.
    pattern
        Regular expression that is searched in a task's description.
    priority
        Among those that match the highest wins.
    description
        What it is for.
    """
    body = read_strategy(path, name=name, stage=stage)
    wishes = {"pattern": pattern, "priority": priority, "description": description}
    body |= {key: value for key, value in wishes.items() if value is not None}
    async with connected(common) as console:
        await _active(common, await console.call("planner.strategy.put", body))


@app.command(name="try")
async def try_(
    name: str,
    stage: str,
    task: str = "{}",
    /,
    *,
    context: str = "{}",
    version: int | None = None,
    common: Common = DEFAULTS,
) -> None:
    """Run one stage for one task, without any effect, and print what it returns.

    For example:
        htdag strategies try standard decompose '{"description":"X","estimated_complexity":10}'

    Parameters
    ----------
    name
        The strategy.
    stage
        decompose, spawn, orchestrate or complete.
    task
        The task as JSON.
    context
        More of the script's `context`, as JSON.
    version
        The version; the active one when none is named.
    """
    body = {
        **_ref(name, version),
        "stage": stage,
        "task": _object(task, "task"),
        "context": _object(context, "context"),
    }
    async with connected(common) as console:
        trial = plain(await console.call("planner.strategy.try", body, timeout_s=max(common.wait, 40.0)))
    # What a script returned is data: shown as JSON also to people.
    common.output.value(trial if common.json else trial["value"])


@app.command
async def activate(name: str, version: int, /, *, common: Common = DEFAULTS) -> None:
    """Make a stored version the active one; runs that have begun keep theirs.

    For example:
        htdag strategies activate standard 1

    Parameters
    ----------
    name
        The strategy.
    version
        The number of the version; `htdag strategies list --json` shows them.
    """
    async with connected(common) as console:
        await _active(common, await console.call("planner.strategy.activate", _ref(name, version)))


@app.command
async def rollback(name: str, /, *, common: Common = DEFAULTS) -> None:
    """Go back to the version that was active before.

    For example:
        htdag strategies rollback secure

    Parameters
    ----------
    name
        The strategy.
    """
    async with connected(common) as console:
        await _active(common, await console.call("planner.strategy.rollback", _ref(name, None)))


@app.command
async def seed(*, common: Common = DEFAULTS) -> None:
    """Store the shipped strategies that are missing; repeating it changes
    nothing.

    For example:
        htdag strategies seed
    """
    async with connected(common) as console:
        strategies = plain(await console.call("planner.strategy.seed", {}))
    common.output.value(strategies, "\n".join(f"{strategy['name']}@{strategy['version']}" for strategy in strategies))


async def _active(common: Common, view: Any) -> None:
    strategy = plain(view)
    state = "active" if strategy["version"] else "not active"
    common.output.value(strategy, f"{strategy['name']}@{strategy['version']} {state}")


def _ref(name: str, version: int | None) -> dict[str, Any]:
    base, _, suffix = name.partition("@")
    if suffix and version is None:
        if not suffix.isdecimal():
            raise Rejected("bad_request", f"{suffix} is no version", hint="name@1", field="version")
        version = int(suffix)
    return {"name": base, **({} if version is None else {"version": version})}


def _object(text: str, field: str) -> dict[str, Any]:
    value = input_file.parse(text.encode(), field)
    if not isinstance(value, dict):
        raise Rejected("bad_request", f"{field} must be a JSON object", field=field)
    return value


def _source_text(stored: dict[str, Any]) -> str:
    body = stored["body"]
    head = f"-- {stored['name']}@{stored['version']}  pattern {body['pattern']}  priority {body['priority']}"
    return "\n".join([head, *(f"\n-- {stage}\n{source.rstrip()}" for stage, source in body["scripts"].items())])
