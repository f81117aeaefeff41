"""Where a coder's /code has no repository, an empty read-only folder stands in for it: none can be made by hand.

The folder is only there while a box needs it. Whoever comes last takes it away; a lock in the gateway's own folder says
who is last, also between the gateways of one home, and tells our folder from one of the user. The lock goes with the
folder: so whoever got one looks whether it is still the lock that others find.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from services.policy_gateway.sandbox import repository

OURS: Final = b"ours"
LOCK_TRIES_MAX: Final = 100
LOCK_AGAIN_S: Final = 0.02
"""Others hold the lock for no longer than a folder takes to vanish, but when their gateway stands still."""


@contextlib.asynccontextmanager
async def guarded(code: Path, name: str, state: Path) -> AsyncIterator[None]:
    """Keep something at /code/.git as long as this lasts. Raises Rejected: not_regular_file, file_error."""
    place = state / "guards" / name
    lock = await _shared(place)
    try:
        _stand_in(code, lock)
        yield
    finally:
        try:
            _take_away(code, place, lock)
        finally:
            os.close(lock)


async def _shared(place: Path) -> int:
    """The lock at this place, held together with others."""
    for _ in range(LOCK_TRIES_MAX):
        lock = _opened(place)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            await asyncio.sleep(LOCK_AGAIN_S)
            continue
        if _stands_at(place, lock):
            return lock
        os.close(lock)
    raise _unprotected()


def _opened(place: Path) -> int:
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as why:
        raise _unprotected() from why


def _stands_at(place: Path, lock: int) -> bool:
    try:
        return os.path.samestat(place.lstat(), os.fstat(lock))
    except OSError:
        return False  # whoever was last took it away between our look and our lock


def _stand_in(code: Path, lock: int) -> None:
    try:
        if repository.kind(code) == "none":
            # Said first: a gateway that dies in between leaves no folder that nobody takes away.
            os.pwrite(lock, OURS, 0)
            (code / ".git").mkdir(exist_ok=True)
    except repository.BadRepository as why:
        raise Rejected("not_regular_file", str(why), path="/code/.git") from why
    except OSError as why:
        raise _unprotected() from why


def _take_away(code: Path, place: Path, lock: int) -> None:
    with contextlib.suppress(OSError):  # others need it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _stands_at(place, lock):
            return
        if os.pread(lock, len(OURS), 0) == OURS:
            os.ftruncate(lock, 0)
            with contextlib.suppress(OSError):  # it is not empty, or gone
                (code / ".git").rmdir()
        place.unlink()


def _unprotected() -> Rejected:
    return Rejected("file_error", "/code/.git cannot be protected", path="/code/.git")
