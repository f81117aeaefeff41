"""Processes of a home that nobody supervises any more: what a killed supervisor left behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from services.console.home import Home
from services.console.processes import Process, identify, stop
from services.console.serve import SERVICES
from services.console.supervision.plan import MARK

TERM_S: Final = 10.0
"""Nobody waits for an orphan to finish its work: whatever it holds is in the log and is taken up again."""


def strays(home: Home) -> list[Process]:
    """Services that `up` started for this home, then its broker; found by looking, not by a record.

    What an operator started in another way is none of them.
    """
    services, brokers = [], []
    configurations = {str(home.nats_conf), str(home.nats_conf_of_old)}
    for pid, words in _command_lines():
        if "-c" in words and not configurations.isdisjoint(words):
            brokers.append(identify(pid))
        elif _is_ours(words) and _started_for(pid) == home.root:
            services.append(identify(pid))
    return [*services, *brokers]


async def sweep(home: Home) -> list[int]:
    """End what an earlier instance of this home left behind, the broker last; the pids that were ended."""
    record = home.record()
    if record is not None and record.running:
        return []
    found = strays(home)
    for process in found:
        left = await stop([process], term_s=TERM_S)
        if left:
            raise Rejected("already_running", "an earlier instance cannot be ended", pid=process.pid)
    return [process.pid for process in found]


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue  # it has just ended, or it is another user's
        yield int(folder.name), words


def _is_ours(words: list[str]) -> bool:
    if words[-2:-1] == ["scale"] or words[-1:] == ["scale"]:
        return True
    return "serve" in words[:-1] and words[words.index("serve") + 1] in SERVICES


def _started_for(pid: int) -> Path | None:
    """The home that `up` started this process for."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    named = [entry for entry in entries if entry.startswith(prefix)]
    return Path(named[0].removeprefix(prefix).decode("utf-8", "replace")) if named else None
