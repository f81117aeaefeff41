"""What a broker's URL looks like, told before anybody tries to connect to a word."""

from typing import Final
from urllib.parse import urlsplit

from contracts.errors import Rejected

SCHEMES: Final = ("nats", "tls", "ws", "wss")
HINT: Final = "NATS_URL (core.nats_url) looks like nats://HOST:PORT; several with commas between"


def check(url: str) -> None:
    """Each server of the list has a host, and a scheme or a port. Raises Rejected("bad_config")."""
    for server in url.split(","):
        bare = "//" not in server
        try:
            parts = urlsplit(f"nats://{server}" if bare else server)
            port = parts.port
        except ValueError as error:
            raise _refused(str(error)) from error
        if not parts.hostname:
            raise _refused("it names no host")
        if parts.scheme not in SCHEMES:
            raise _refused(f"no such scheme: {parts.scheme}")
        if bare and port is None:
            # A lone word is more often a slip than a host; and it may be a password, so it is not repeated.
            raise _refused("it has neither a scheme nor a port")


def _refused(why: str) -> Rejected:
    return Rejected("bad_config", f"NATS_URL is no broker's URL: {why}", key="core.nats_url", hint=HINT)
