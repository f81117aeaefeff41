"""The key file of identity: one key a line, the newest first, and the seed of what must never change.

New secrets are sealed with the first key, all of them open old ones. The file is read again when it changes, so that
`htdag users rotate` works on a running service. It names the keys that were dropped from it by their marks: a file
that neither has nor dropped the key in use is an older copy, and is not taken.
"""

import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.fernet import Fernet

from contracts.errors import Rejected
from services.identity.own_files import write_private

KEY_FILE: Final = "identity"
SEED_BYTES: Final = 32
LOCK_WAIT_S: Final = 30.0
"""Longer than whoever drops old keys waits for the accounts, by default."""
LOCK_AGAIN_S: Final = 0.05
DROPPED_MAX: Final = 64
"""So many dropped keys are remembered: more than any replica sleeps through."""
_SEED: Final = "seed="
_DROPPED: Final = "dropped="
_HEADER: Final = (
    "# Keys of the identity service, newest first. Whoever has them has every secret; losing them loses all.\n"
)


class Keys(NamedTuple):
    """What the key file holds."""

    fernet: tuple[str, ...]
    """Newest first."""
    seed: str
    """Stays for ever: what is derived from it must not change when keys are rotated."""
    dropped: tuple[str, ...] = ()
    """Marks of the keys that were taken out, the last one last; no key can be had from its mark."""


class KeyFile:
    """The keys of one instance. Raises Rejected bad_config when the file is missing, open to others, or no key file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._keys = Keys((), "")

    def create(self) -> None:
        """Make it with one new key, unless it is there."""
        if self.path.exists():
            return
        with self.changing():
            if not self.path.exists():
                self._write(Keys((Fernet.generate_key().decode(),), secrets.token_hex(32)))

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who changes the file, from reading it to replacing it. Raises conflict after LOCK_WAIT_S."""
        until_s = time.monotonic() + LOCK_WAIT_S
        descriptor = self._lock_file()
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= until_s:
                        raise Rejected("conflict", "the key file of identity is being changed; again later") from error
                    time.sleep(LOCK_AGAIN_S)
            self._seen = None
            yield
        finally:
            os.close(descriptor)

    def _lock_file(self) -> int:
        path = self.path.with_name(f".{self.path.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Rejected("bad_config", f"{path.name} cannot be written: {error.strerror}", hint=str(path)) from error

    def read(self) -> Keys:
        """All keys; the file is read again when it was changed."""
        try:
            info = self.path.stat()
            mark = (info.st_mtime_ns, info.st_ino)
            if mark == self._seen:
                return self._keys
            if stat.S_IMODE(info.st_mode) & 0o077:
                hint = f"chmod 600 {self.path}"
                raise Rejected("bad_config", "the key file of identity is open to others", hint=hint)
            keys = _parsed(self.path.read_text(encoding="ascii"))
        except FileNotFoundError as error:
            raise Rejected("bad_config", "the key file of identity is lost", hint=self._put_back) from error
        except (OSError, ValueError) as error:
            raise Rejected("bad_config", "the key file of identity cannot be read", hint=self._put_back) from error
        self._seen, self._keys = mark, keys
        return keys

    def rotate(self) -> int:
        """Put a new key in front; how many there are now. Inside `changing`."""
        keys = self.read()
        self._write(Keys((Fernet.generate_key().decode(), *keys.fernet), keys.seed, keys.dropped))
        return len(keys.fernet) + 1

    def drop_old(self) -> int:
        """Keep only the newest; how many were dropped. What was sealed with the others can never be opened again.

        Inside `changing`, as what says that nothing is sealed with the others any more.
        """
        keys = self.read()
        dropped = (*keys.dropped, *map(mark_of, reversed(keys.fernet[1:])))
        self._write(Keys(keys.fernet[:1], keys.seed, dropped[-DROPPED_MAX:]))
        return len(keys.fernet) - 1

    @property
    def _put_back(self) -> str:
        return f"put {self.path} back from its copy; without it no secret can be opened"

    def _write(self, keys: Keys) -> None:
        dropped = (_DROPPED + mark for mark in keys.dropped)
        text = _HEADER + "\n".join((*keys.fernet, _SEED + keys.seed, *dropped)) + "\n"
        write_private(self.path, text)
        self._seen = None


def _parsed(text: str) -> Keys:
    """Raises ValueError when a line is neither a key nor the seed, or one of both is missing."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    seeds = [line.removeprefix(_SEED) for line in lines if line.startswith(_SEED)]
    dropped = tuple(line.removeprefix(_DROPPED) for line in lines if line.startswith(_DROPPED))
    fernet = tuple(line for line in lines if not line.startswith((_SEED, _DROPPED)))
    for key in fernet:
        Fernet(key)
    if len(seeds) != 1 or len(bytes.fromhex(seeds[0])) != SEED_BYTES or not fernet:
        raise ValueError("not a key file")
    return Keys(fernet, seeds[0], dropped[-DROPPED_MAX:])


def mark_of(key: str) -> str:
    """What a key is known by where no key may stand; it cannot be had from it."""
    return hashlib.blake2b(key.encode(), digest_size=16, person=b"dropped").hexdigest()


def knows(keys: Keys, mark: str) -> bool:
    """Whether a file has the key with this mark, or dropped it on purpose; one that does neither is an older copy."""
    return mark in {*map(mark_of, keys.fernet), *keys.dropped}


def follows(keys: Keys, used: Keys) -> bool:
    """Whether a file comes after the one in use: it opens what that one seals, or dropped its key on purpose."""
    return keys.seed == used.seed and knows(keys, mark_of(used.fernet[0]))
