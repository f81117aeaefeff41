"""`htdag agents`: accounts of agents, and how one proves itself to another."""

import os
from typing import Any

from cyclopts import App

from contracts.errors import Rejected
from services.console import local_identity
from services.console.connection import connected
from services.console.home import Home, write_private
from services.console.options import DEFAULTS, Common
from services.console.output import columns, plain

app = App(name="agents", help="Agents: create, read one's own code, challenge another.", help_format="plaintext")

VARIABLE = "HTDAG_AGENT_CREDENTIAL"


@app.command(name="list")
async def list_(*, common: Common = DEFAULTS) -> None:
    """List all agents.

    For example:
        htdag agents list
    """
    async with connected(common) as console:
        users = plain(await console.call("identity.user.list", {}))
    agents = [user for user in users if user["kind"] == "agent"]
    rows = [(agent["name"], agent["created_at"], "yes" if agent["locked"] else "") for agent in agents]
    common.output.value(agents, lambda _: columns(("AGENT", "CREATED", "LOCKED"), rows))


@app.command
async def create(name: str, /, *, common: Common = DEFAULTS) -> None:
    """Create an agent. Its credential is kept in keys/agents of the home, 0600,
    and printed with --json this once.

    For example:
        htdag agents create planner-1

    Parameters
    ----------
    name
        Begins with a letter; then letters, digits, _ and -.
    """
    async with connected(common) as console:
        made = plain(await console.call("identity.agent.create", {"name": name}))
    path = local_identity.credential_file(common.place, made["user_id"])
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, made["credential"] + "\n")
    common.output.value(made, f"{made['name']} is created (kind agent, proof on); its credential is in {path}")


@app.command
async def code(name: str, /, *, user: str | None = None, common: Common = DEFAULTS) -> None:
    """Print the agent's own current code, for a challenge by another agent.

    For example:
        htdag agents code planner-1

    Parameters
    ----------
    name
        The agent that speaks; its credential is read from the home or HTDAG_AGENT_CREDENTIAL.
    user
        Always refused: an agent reads its own code only.
    """
    body: dict[str, Any] = {"credential": _credential(common.place, name)}
    if user is not None:
        body["user"] = user
    async with connected(common) as console:
        shown = plain(await console.call("identity.agent.code", body))
    common.output.value(shown, shown["code"])


@app.command
async def verify(name: str, code: str, /, *, by: str, common: Common = DEFAULTS) -> None:
    """Let one agent verify another's code. A code is accepted once.

    For example:
        htdag agents verify planner-1 123456 --by worker-2

    Parameters
    ----------
    name
        The agent that is challenged.
    code
        What it presented.
    by
        The agent that asks.
    """
    body = {"agent": name, "code": code, "credential": _credential(common.place, by)}
    async with connected(common) as console:
        verified = plain(await console.call("identity.agent.challenge", body))
    common.output.value(verified, f"verified {verified['agent']} kind={verified['kind']}")


def _credential(home: Home, name: str) -> str:
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE]
    try:
        return local_identity.credential_file(home, name).read_text(encoding="ascii").strip()
    except OSError as error:
        raise Rejected("bad_credential", f"there is no credential of {name} in this home") from error
