"""Passwords: Argon2id, in a thread of its own, one at a time; a name nobody has costs as much as any other."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from contracts.errors import Rejected

CHARS_MIN: Final = 8
CHARS_MAX: Final = 1_024
ITERATIONS: Final = 3
LANES: Final = 4
WAITING_MAX: Final = 8
"""The one at work included."""
HOME_WAITING_MAX: Final = 4
"""Places of their own for whoever may read the home of the instance: strangers cannot fill these."""
# Two derivations of several lanes at a time wait for each other for ever (cryptography 50, OpenSSL 4.0). So there is
# one thread for all of them, whoever stopped waiting meanwhile.
_THREAD: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
T = TypeVar("T")


class Passwords:
    """Hashes and compares, one at a time: each takes `memory_kib`. Few may wait, others are refused."""

    def __init__(self, memory_kib: int) -> None:
        self._memory_kib = memory_kib
        self._waiting = {False: 0, True: 0}
        self._dummy: str | None = None

    async def hashed(self, password: str, *, home: bool = False) -> str:
        """The PHC string to seal. Raises Rejected("weak_password")."""
        if not CHARS_MIN <= len(password) <= CHARS_MAX:
            raise Rejected("weak_password", min=CHARS_MIN, max=CHARS_MAX)
        return await self._one_by_one(self._hash, password, home=home)

    async def fits(self, password: str, phc: str | None, *, home: bool = False) -> bool:
        """Whether it is the password of this hash; without a hash it takes as long and is not."""
        if self._dummy is None:
            self._dummy = await self.hashed("nobody's password", home=home)
        right = await self._one_by_one(_fits, password[:CHARS_MAX], phc or self._dummy, home=home)
        return right and phc is not None

    async def _one_by_one(self, work: Callable[..., T], *given: str, home: bool) -> T:
        """Raises rate_limited when too many wait: each of them costs some tenths of a second of this machine."""
        if self._waiting[home] >= (HOME_WAITING_MAX if home else WAITING_MAX):
            raise Rejected("rate_limited", "too many passwords at once", retry_after=1)
        self._waiting[home] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(_THREAD, work, *given)
        finally:
            self._waiting[home] -= 1

    def _hash(self, password: str) -> str:
        kdf = Argon2id(salt=os.urandom(16), length=32, iterations=ITERATIONS, lanes=LANES, memory_cost=self._memory_kib)
        return kdf.derive_phc_encoded(password.encode())


def _fits(password: str, phc: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(password.encode(), phc)
    except InvalidKey:
        return False
    return True
