"""The test clock of `htdag up`: said loudly, and refused when anybody from elsewhere could profit from it."""

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from contracts.errors import Rejected
from services.console.output import Output
from services.console.supervision.broker import greeting


async def accepted(path: Path, output: Output) -> Path:
    """The file as an absolute path. Raises Rejected("bad_config") when it holds no time, or beyond loopback."""
    from services.runtime.config import Config

    clock = _readable(path)
    places = [("core.http_host", Config.load().core.http_host)]
    url = os.environ.get("NATS_URL")
    if url:
        said = await greeting(url)
        places += [("NATS_URL", urlsplit(url if "//" in url else f"nats://{url}").hostname or "")]
        places += [("the broker", str(said.get("host", "")))]
    for what, host in places:
        if not _loopback(host):
            raise Rejected("bad_config", f"a test clock is refused: {what} is {host}, which is beyond loopback")
    output.note(f"TEST CLOCK: identity takes the time from {clock}. Whoever writes it can pass off old codes.")
    return clock


def _readable(path: Path) -> Path:
    clock = path.expanduser().absolute()
    try:
        float(clock.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise Rejected("bad_config", f"{clock} holds no epoch seconds", hint="date +%s > FILE") from error
    return clock


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
