"""Signed checkpoints: who holds the chain's head can prove that nothing before it was changed later.

The private key never leaves the home's keys; the public one stands beside it and in every checkpoint.
"""

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from contracts.errors import Rejected
from contracts.policy import AuditCheckpoint
from services.policy_gateway.audit.fingerprint import Fingerprint
from services.runtime.private_files import create_private
from services.runtime.signatures import signature_ok

PRIVATE_FILE: Final = "audit-ed25519"
PUBLIC_FILE: Final = "audit-ed25519.pub"


def statement(n: int, prev: str, at_ms: int) -> bytes:
    """What a checkpoint signs: its own place, and the hash of everything before it."""
    return f"htdag-audit-v1 {n} {prev} {at_ms}".encode()


class Signer:
    """Signs with the key of one home, and makes the fingerprints that only this home can make."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.fingerprint = Fingerprint(
            HKDF(SHA256(), 32, salt=None, info=b"htdag-audit-fingerprint-v1").derive(
                key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            )
        )
        self.public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    def sign(self, n: int, prev: str, at_ms: int) -> str:
        """The signature over a checkpoint's statement, in hex."""
        return self._key.sign(statement(n, prev, at_ms)).hex()


def signer_of(key: str) -> Signer:
    """The signer with a given private key, in hex. Raises Rejected("bad_config")."""
    try:
        return Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key.strip())))
    except ValueError as error:
        raise Rejected("bad_config", "policy.audit_key is no Ed25519 key in hex", key="policy.audit_key") from error


def load_signer(keys: Path) -> Signer:
    """The signer of this home; its key is made on first use. Raises Rejected("bad_config")."""
    path = keys / PRIVATE_FILE
    try:
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            create_private(path, _new_key())  # another gateway of this home may have made one: it is ours too
        signer = Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii").strip())))
        public = keys / PUBLIC_FILE
        if not public.exists() or public.read_text(encoding="ascii").strip() != signer.public:
            public.write_text(signer.public + "\n", encoding="ascii")
    except (OSError, ValueError) as error:
        raise Rejected(
            "bad_config", f"the audit key {PRIVATE_FILE} cannot be used: {error}", key="core.home"
        ) from error
    return signer


def good_signature(entry: AuditCheckpoint) -> bool:
    """Whether a checkpoint was signed by the key that it names."""
    return signature_ok(entry.key, entry.signature, statement(entry.n, entry.prev, entry.at_ms))


def _new_key() -> str:
    raw = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return raw.hex() + "\n"
