"""Secrets at rest: MultiFernet, with owner and kind inside what is sealed, and the key file that opens it.

Fernet has no associated data, so a token cut from one account and pasted into another would open there too; that is
why every plaintext says whose it is and of which kind, and is refused when that is not what was asked for.

The key file holds one key a line, the newest first: new secrets are sealed with the first, all of them open old ones.
It is read again when it changes, so that `htdag users rotate` works on a running service. It names the keys that were
dropped from it by their marks: a file that neither has nor dropped the key in use is an older copy, and is not taken.
"""

import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hmac import compare_digest
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.errors import Rejected
from services.runtime.private_files import replace_private

Kind = Literal["totp", "password"]
KEY_FILE: Final = "identity"
SEED_BYTES: Final = 32
LOCK_WAIT_S: Final = 30.0
"""Longer than whoever drops old keys waits for the accounts, by default."""
DROPPED_MAX: Final = 64
"""So many dropped keys are remembered: more than any replica sleeps through."""
_SEED: Final = "seed="
_DROPPED: Final = "dropped="
_HEADER: Final = (
    "# Keys of the identity service, newest first. Whoever has them has every secret; losing them loses all.\n"
)


class _Sealed(msgspec.Struct, frozen=True):
    user_id: str
    kind: str
    secret: str


_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(_Sealed).decode


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
                    time.sleep(0.05)
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
            hint = f"put {self.path} back from its copy; without it no secret can be opened"
            raise Rejected("bad_config", "the key file of identity is lost", hint=hint) from error
        except (OSError, ValueError) as error:
            hint = f"put {self.path} back from its copy; without it no secret can be opened"
            raise Rejected("bad_config", "the key file of identity cannot be read", hint=hint) from error
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
        dropped = (*keys.dropped, *map(_mark, reversed(keys.fernet[1:])))
        self._write(Keys(keys.fernet[:1], keys.seed, dropped[-DROPPED_MAX:]))
        return len(keys.fernet) - 1

    def _write(self, keys: Keys) -> None:
        dropped = (_DROPPED + mark for mark in keys.dropped)
        text = _HEADER + "\n".join((*keys.fernet, _SEED + keys.seed, *dropped)) + "\n"
        write_private(self.path, text)
        self._seen = None


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, mode 0600, on the disk when this returns. Raises Rejected("bad_config")."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_private(path, text)
    except OSError as error:
        raise Rejected("bad_config", f"{path.name} cannot be written: {error.strerror}", hint=str(path)) from error


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


def _mark(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=16, person=b"dropped").hexdigest()


def _follows(keys: Keys, used: Keys) -> bool:
    """Whether a file comes after the one in use: it opens what that one seals, or dropped its key on purpose."""
    newest = used.fernet[0]
    return keys.seed == used.seed and (newest in keys.fernet or _mark(newest) in keys.dropped)


class Sealer:
    """Seals and opens secrets, and derives what else must be the same in every replica."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._keys = file.read()
        self._fernet = MultiFernet([Fernet(key) for key in self._keys.fernet])
        self._newest = Fernet(self._keys.fernet[0])
        self._version = 1
        self._signing = Ed25519PrivateKey.from_private_bytes(self.derived("sign"))
        self.public_key = self._signing.public_key().public_bytes_raw().hex()

    def seal(self, user_id: str, kind: Kind, secret: str) -> str:
        """The token to store."""
        return self._current().encrypt(_ENCODE(_Sealed(user_id, kind, secret))).decode()

    def open(self, user_id: str, kind: Kind, token: str) -> str:
        """The secret in a token of exactly this owner and kind. Raises Rejected bad_config, or internal when not."""
        try:
            sealed = _DECODE(self._current().decrypt(token.encode()))
        except (InvalidToken, msgspec.MsgspecError) as error:
            hint = "the key file is not the one this was sealed with"
            raise Rejected("bad_config", "a stored secret cannot be opened", hint=hint) from error
        ours = compare_digest(sealed.user_id.encode(), user_id.encode())
        if not (ours and compare_digest(sealed.kind.encode(), kind.encode())):
            raise Rejected("internal", "a stored secret belongs to somebody else")
        return sealed.secret

    def is_newest(self, token: str) -> bool:
        """Whether the newest key sealed it."""
        self._current()
        try:
            self._newest.decrypt(token.encode())
        except InvalidToken:
            return False
        return True

    @property
    def version(self) -> int:
        """Another one after each change of the keys: what was sealed before may not open any more."""
        self._current()
        return self._version

    @property
    def keys(self) -> int:
        """How many keys there are; more than one means that a rotation is not finished by `--drop-old`."""
        self._current()
        return len(self._keys.fernet)

    def check(self) -> None:
        """Return when the keys are the right ones. Raises bad_config, of which nobody's name may make a difference."""
        self._current()

    def reason(self) -> str | None:
        """Why nothing can be sealed or opened now, for `/readyz`; None when all is well."""
        try:
            self._current()
        except Rejected as error:
            return error.message
        return None

    def derived(self, purpose: str) -> bytes:
        """32 secret bytes for one purpose, the same in every replica with this key file."""
        seed = bytes.fromhex(self._keys.seed)
        return hashlib.blake2b(key=seed, digest_size=SEED_BYTES, person=purpose.encode()[:16]).digest()

    def sign(self, text: bytes) -> str:
        """Ed25519, hex."""
        return self._signing.sign(text).hex()

    def _current(self) -> MultiFernet:
        keys = self._file.read()
        if not _follows(keys, self._keys):
            # A foreign one, or an older copy: known names would fail and unknown ones not, so it is used for neither.
            hint = f"put {self._file.path} back from its copy"
            raise Rejected("bad_config", "another key file was put in the place of identity's", hint=hint)
        if keys.fernet != self._keys.fernet:
            self._fernet = MultiFernet([Fernet(key) for key in keys.fernet])
            self._newest, self._keys = Fernet(keys.fernet[0]), keys
            self._version += 1
        return self._fernet
