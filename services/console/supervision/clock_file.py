"""The test clock of `htdag up`: said loudly, and refused when anybody from elsewhere could profit from it."""

import os
from pathlib import Path

from contracts.errors import Rejected
from services.console.output import Output
from services.console.supervision.broker import greeting
from services.runtime.file_clock import FileClock, refuse_beyond_loopback


async def accepted(path: Path, output: Output) -> Path:
    """The file as an absolute path. Raises Rejected("bad_config") when it holds no time, or beyond loopback."""
    from services.runtime.config import Config

    clock = _readable(path)
    places = {"core.http_host": Config.load().core.http_host}
    url = os.environ.get("NATS_URL")
    if url:
        refuse_beyond_loopback({"NATS_URL": url})
        places["the broker"] = str((await greeting(url)).get("host", ""))
    refuse_beyond_loopback(places)
    output.note(f"TEST CLOCK: identity takes the time from {clock}. Whoever writes it can pass off old codes.")
    return clock


def _readable(path: Path) -> Path:
    clock = path.expanduser().absolute()
    try:
        FileClock(clock).now_ms()
    except Rejected as error:
        raise Rejected("bad_config", f"{clock}: {error.message}", hint="date +%s > FILE") from error
    return clock
