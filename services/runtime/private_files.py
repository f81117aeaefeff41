"""Files for their owner only, whole or not at all: the one place where keys, secrets and settings are written.

Made under a name of its own that nobody else has, mode 0600 from the start, written, put on the disk, then given its
real name; and the folder is put on the disk too, or the name could be lost with the power.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

UMASK: Final = 0o077
"""What a process hides from others of all that it makes, if it may make only private files."""


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Whatever this process makes meanwhile is private, and whatever the programs make that it starts meanwhile."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)


def replace_private(path: Path, text: str) -> None:
    """Write the file, over an older one if there is one. Raises OSError, and then nothing has changed."""
    with _beside(path, text) as fresh:
        os.replace(fresh, path)
        _sync_folder(path.parent)


def create_private(path: Path, text: str) -> bool:
    """Write the file unless there is one; False where somebody else's stands. Raises OSError."""
    with _beside(path, text) as fresh:
        try:
            os.link(fresh, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


@contextlib.contextmanager
def _beside(path: Path, text: str) -> Iterator[Path]:
    """The content under another name, which is gone afterwards."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield fresh
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
