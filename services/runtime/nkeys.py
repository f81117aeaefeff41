"""NKeys: how a service proves to the broker who it is. The broker knows public keys only; the seed stays in one file.

An NKey is an Ed25519 key written in base32: prefix byte, 32 bytes, CRC-16. A seed's first two bytes hold two prefixes,
"seed" and what it is a seed of. Only users exist here. See https://docs.nats.io, "NKeys".
"""

import base64
import binascii
import secrets
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from services.runtime.private_files import create_private

SUFFIX: Final = ".nk"
_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_BYTES: Final = 32


class KeyPair:
    """One user's key: `seed` is the secret, `public` is what the broker's configuration holds."""

    def __init__(self, seed: str) -> None:
        """Read a seed; raises ValueError when it is not one of a user."""
        # Costs 30 ms of every start: only who really has a key pays it.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        raw = _decoded(seed, 2 + _BYTES)
        if raw[:2] != _seed_prefix():
            raise ValueError("not the seed of a user")
        self.seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(raw[2:])
        self.public = _encoded(bytes([_USER]) + self._private.public_key().public_bytes_raw())

    @classmethod
    def make(cls) -> "KeyPair":
        """A new key."""
        return cls(_encoded(_seed_prefix() + secrets.token_bytes(_BYTES)))

    def sign(self, nonce: str) -> bytes:
        """The signature of the broker's nonce, as CONNECT carries it."""
        return base64.urlsafe_b64encode(self._private.sign(nonce.encode())).rstrip(b"=")


def load(place: Path, user: str) -> KeyPair:
    """The key in a seed file, or of `user` in a folder of seed files. Raises Rejected("bad_config")."""
    path = place / f"{user}{SUFFIX}" if place.is_dir() else place
    try:
        return KeyPair(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise Rejected("bad_config", f"the NKey {path} cannot be read: {error.strerror}", key="NATS_NKEY") from error
    except ValueError as error:
        raise Rejected("bad_config", f"{path} holds no NKey seed of a user", key="NATS_NKEY") from error


def keep(folder: Path, user: str) -> KeyPair:
    """The key of `user` in a folder of seeds, made on first use and readable by the owner only. Raises OSError."""
    path = folder / f"{user}{SUFFIX}"
    if not path.exists():
        # Whole or not at all: half a seed would lock its owner out for good.
        create_private(path, KeyPair.make().seed + "\n")
    return load(path, user)


def _seed_prefix() -> bytes:
    return bytes([_SEED | (_USER >> 5), (_USER & 31) << 3])


def _encoded(raw: bytes) -> str:
    check = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + check).decode().rstrip("=")


def _decoded(text: str, size: int) -> bytes:
    data = base64.b32decode(text + "=" * (-len(text) % 8))
    raw, check = data[:-2], data[-2:]
    if len(raw) != size or binascii.crc_hqx(raw, 0).to_bytes(2, "little") != check:
        raise ValueError("damaged")
    return raw
