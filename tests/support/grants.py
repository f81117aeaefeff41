"""Releases of gates as identity signs them, with a key that a test holds."""

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.approval import TakeApproval, signed_text

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw().hex()


def signed(answer: TakeApproval, key: Ed25519PrivateKey = KEY) -> TakeApproval:
    """The same answer with a signature over what it says."""
    text = signed_text(
        approval_id=answer.approval_id, run_id=answer.run_id, task_id=answer.task_id, attempt=answer.attempt,
        digest=answer.digest, user=answer.user or "", step=answer.step or 0, at_ms=answer.at_ms,
    )  # fmt: skip
    public = key.public_key().public_bytes_raw().hex()
    return msgspec.structs.replace(answer, signature=key.sign(text).hex(), key=public)
