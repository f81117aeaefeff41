"""The local listener of this home's identity: where it is, set-up links that are not used yet, and requests to it."""

import asyncio
import http.client
import importlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from contracts.errors import Rejected
from contracts.reply import RemoteRejected
from contracts.subjects import check_id
from services.console.home import Home
from services.console.processes import identify

ANSWER_S: Final = 30.0
KEY_FILE: Final = "identity"
LINKS: Final = "set-up-links"
AGENTS: Final = "agents"
PAGE: Final = "/auth/setup/"
_FIRST: Final = "/auth/password/"


class _LocalFile(msgspec.Struct, frozen=True):
    pid: int
    url: str
    presence: str = ""
    key_file: str = ""


def address(home: Home) -> str | None:
    """The URL of the listener; None when no identity runs in this home."""
    found = _running(home)
    return found.url if found is not None else None


def key_path(home: Home) -> Path:
    """The key file of this home's identity: the one that runs says which, else the configuration. Raises bad_config."""
    found = _running(home)
    if found is not None and found.key_file:
        return Path(found.key_file)
    # Late: most commands need neither.
    config: Any = importlib.import_module("services.runtime.config")
    section: Any = importlib.import_module("services.identity.config")
    named = config.Config.load({"core.home": str(home.root)}).section("identity", section.Config).key_file
    return Path(named).expanduser() if named else home.keys / KEY_FILE


def _running(home: Home) -> _LocalFile | None:
    found: list[tuple[float, _LocalFile]] = []
    for path in home.run.glob("identity-*.local"):
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=_LocalFile)
            if identify(entry.pid).start_ticks:
                found.append((path.stat().st_mtime, entry))
        except (OSError, msgspec.MsgspecError):
            continue  # it is being replaced or removed right now
    return max(found, key=lambda one: one[0])[1] if found else None


def links(home: Home) -> dict[str, str]:
    """Set-up links that nobody used yet, by account. They lead to an identity that runs: any one of several does."""
    found = {}
    here = address(home)
    for path in sorted((home.keys / LINKS).glob("[!.]*")):
        try:
            link = path.read_text(encoding="ascii").strip()
            _, page, rest = link.partition(PAGE)
            found[path.name] = f"{here}{page}{rest}" if here and page else link
        except OSError:
            continue  # it was used just now
    return found


def token_of(home: Home, user: str) -> str:
    """The token in an account's set-up link. Raises bad_link."""
    link = links(home).get(user.lower())
    if link is None:
        raise Rejected("bad_link", f"there is no set-up link for {user}", hint="`htdag users list` shows who has one")
    return link.rpartition("#")[2]


async def bring_to_life(home: Home, name: str, password: str) -> dict[str, Any]:
    """The first password of an account, by the link in its file; what its session is. Raises as `post` does."""
    token = token_of(home, name)
    try:
        return await post(home, _FIRST, {"user": name, "password": password, "token": token})
    except RemoteRejected as error:
        # One that had run out was replaced by this.
        if error.code != "bad_link" or token_of(home, name) == token:
            raise
    return await post(home, _FIRST, {"user": name, "password": password, "token": token_of(home, name)})


def credential_file(home: Home, agent: str) -> Path:
    """Where `htdag agents create` keeps an agent's credential. Raises bad_id for what would be another file."""
    return home.keys / AGENTS / check_id(agent.lower(), "agent")


async def post(home: Home, path: str, body: dict[str, Any], session: str | None = None) -> dict[str, Any]:
    """One request to the listener. Raises RemoteRejected when it refuses, not_running when there is none."""
    found = _running(home)
    if found is None:
        raise Rejected("not_running", "no identity runs in this home", home=str(home.root))
    # It says that we may read this home: then nobody else on this host can use up our attempts.
    presence = {"presence": found.presence} if found.presence else {}
    return await asyncio.to_thread(_post, found.url, path, {**body, **presence}, session)


def _post(url: str, path: str, body: dict[str, Any], session: str | None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {session}"} if session else {})}
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_S)
    try:
        connection.request("POST", path, msgspec.json.encode(body), headers)
        answer = connection.getresponse()
        told: dict[str, Any] = msgspec.json.decode(answer.read())
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        raise Rejected("service_unavailable", "the local listener does not answer", service="identity") from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RemoteRejected({key: value for key, value in told.items() if key not in ("type", "title", "status")})
    return told
