"""`<home>/run/<instance>.local`: where the console finds the listener of a running identity."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from services.identity.own_files import write_private


class LocalFile(msgspec.Struct, frozen=True):
    """Process, address, and the file of the clock when it is not the machine's.

    `presence` is a random word of this process: whoever says it to the listener may read this file. `key_file` is the
    path of the keys that it works with.
    """

    pid: int
    url: str
    test_clock: str | None = None
    presence: str = ""
    key_file: str = ""


def tell_where(
    folder: Path, instance: str, url: str, test_clock: str | None, presence: str, key_file: Path
) -> Callable[[], Awaitable[None]]:
    """Write the file and clear away those of the dead; what takes it away again at the end."""
    for other in folder.glob("*.local"):
        if not _lives(other):
            other.unlink(missing_ok=True)
    path = folder / f"{instance}.local"
    told = LocalFile(os.getpid(), url, test_clock, presence, str(key_file.absolute()))
    write_private(path, msgspec.json.encode(told).decode())

    async def take_away() -> None:
        path.unlink(missing_ok=True)

    return take_away


def living(folder: Path) -> set[str]:
    """The addresses of all listeners of this home whose process lives."""
    found: set[str] = set()
    for path in folder.glob("*.local"):
        try:
            if _lives(path):
                found.add(msgspec.json.decode(path.read_bytes(), type=LocalFile).url)
        except (OSError, msgspec.MsgspecError):
            continue  # it is being replaced or removed right now
    return found


def _lives(path: Path) -> bool:
    try:
        os.kill(msgspec.json.decode(path.read_bytes(), type=LocalFile).pid, 0)
    except (ProcessLookupError, msgspec.MsgspecError):
        return False
    except OSError:
        return True  # it lives under another user, or has just taken its file away
    return True
