"""Digests of what the audit does not show, under a key: they tell repeats apart, and nobody can guess what is behind.

A plain digest of a short secret is the secret: whoever reads the audit tries all of them. The key is derived from the
one that signs the audit, so gateways of one home agree. The first characters name the key: who has another one sees
that it cannot compare.
"""

import hmac
from hashlib import sha256
from typing import Final

KEY_CHARS: Final = 16
"""So many characters of a fingerprint name its key; the 48 behind them are the digest."""


class Fingerprint:
    """Makes digests of 64 hex characters under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._name = hmac.new(key, b"htdag-fingerprint-name", sha256).hexdigest()[:KEY_CHARS]

    def of(self, data: bytes) -> str:
        """The fingerprint of `data`."""
        return self._name + hmac.new(self._key, data, sha256).hexdigest()[KEY_CHARS:]


def comparable(one: str, other: str) -> bool:
    """Whether two fingerprints were made under the same key."""
    return one[:KEY_CHARS] == other[:KEY_CHARS]
