"""Ed25519 signatures, as all services write them: keys and signatures in hex."""


def signature_ok(public_key: str, signature: str, text: bytes) -> bool:
    """Whether a text was signed with the private half of this key. What is no key or no signature at all never fits."""
    # Its import takes a moment, and only those who check pay for it.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), text)
    except (InvalidSignature, ValueError):
        return False
    return True
