"""Secrets at rest: MultiFernet, with owner and kind inside what is sealed.

Fernet has no associated data, so a token cut from one account and pasted into another would open there too; that is
why every plaintext says whose it is and of which kind, and is refused when that is not what was asked for.
"""

import hashlib
from hmac import compare_digest
from typing import Final, Literal

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.errors import Rejected
from services.identity.key_file import SEED_BYTES, KeyFile, follows, mark_of

Kind = Literal["totp", "password"]


class _Sealed(msgspec.Struct, frozen=True):
    user_id: str
    kind: str
    secret: str


_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(_Sealed).decode


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

    @property
    def newest(self) -> str:
        """The mark of the key that is sealed with now."""
        self._current()
        return mark_of(self._keys.fernet[0])

    def check(self) -> None:
        """Return when the key file is the right one. Raises bad_config.

        Asked before a name is looked up: later only names that somebody has would be answered so, and be told apart.
        """
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
        if not follows(keys, self._keys):
            # A foreign one, or an older copy: known names would fail and unknown ones not, so it is used for neither.
            hint = f"put {self._file.path} back from its copy"
            raise Rejected("bad_config", "another key file was put in the place of identity's", hint=hint)
        if keys.fernet != self._keys.fernet:
            self._fernet = MultiFernet([Fernet(key) for key in keys.fernet])
            self._newest, self._keys = Fernet(keys.fernet[0]), keys
            self._version += 1
        return self._fernet
