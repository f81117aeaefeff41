"""Passwords: Argon2id, in threads of their own, few at a time; a name nobody has costs as much as any other."""

import asyncio
import os
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from contracts.errors import Rejected

CHARS_MIN: Final = 8
CHARS_MAX: Final = 1_024
MEMORY_KIB: Final = 64 << 10
ITERATIONS: Final = 3
LANES: Final = 4
AT_ONCE_MAX: Final = 2


class Passwords:
    """Hashes and compares. At most AT_ONCE_MAX at a time: each takes 64 MiB."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self._dummy: str | None = None

    async def hashed(self, password: str) -> str:
        """The PHC string to seal. Raises Rejected("weak_password")."""
        if not CHARS_MIN <= len(password) <= CHARS_MAX:
            raise Rejected("weak_password", min=CHARS_MIN, max=CHARS_MAX)
        async with self._slots:
            return await asyncio.to_thread(_hash, password)

    async def fits(self, password: str, phc: str | None) -> bool:
        """Whether it is the password of this hash; without a hash it takes as long and is not."""
        if self._dummy is None:
            self._dummy = await self.hashed("nobody's password")
        async with self._slots:
            right = await asyncio.to_thread(_fits, password[:CHARS_MAX], phc or self._dummy)
        return right and phc is not None


def _hash(password: str) -> str:
    kdf = Argon2id(salt=os.urandom(16), length=32, iterations=ITERATIONS, lanes=LANES, memory_cost=MEMORY_KIB)
    return kdf.derive_phc_encoded(password.encode())


def _fits(password: str, phc: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(password.encode(), phc)
    except InvalidKey:
        return False
    return True
