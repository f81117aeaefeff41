"""Releases of gates are believed by their signature: whoever else gets a message into a run's mailbox releases nothing.

The key is the configured one; without one, identity itself is asked, which alone may answer on its subjects.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

from contracts.approval import ApprovalKey, TakeApproval, signed_text
from contracts.errors import Rejected
from contracts.subjects import rpc
from services.runtime.clock import Clock
from services.runtime.signatures import signature_ok

AWAY: Final = frozenset({"service_unavailable", "timeout", "no_responders", "nats_unavailable"})
AWAY_S: Final = 0.5
KEY: Final = rpc("identity", "approval", "key")
ASK_S: Final = 5.0
ASK_AGAIN_S: Final = 10.0
"""A key that was asked for holds; another one is asked for so seldom, however much is signed with strange keys."""


class Asking(Protocol):
    """The part of the bus that is needed."""

    async def call(self, subject: str, body: Any, *, into: Any = ..., timeout_s: float = ...) -> Any:
        """One request verb and its value."""
        ...


class Grants:
    """Tells what identity has signed from what it has not. `trusted` are public keys, hex; empty: identity's own.

    For `patience_s` an identity that is away is asked again, for callers who could only fail without an answer.
    """

    def __init__(self, bus: Asking, clock: Clock, trusted: Sequence[str] = (), patience_s: float = 0.0) -> None:
        self._bus, self._clock, self._patience_s = bus, clock, patience_s
        self._pinned = frozenset(key.strip().lower() for key in trusted)
        self._identitys: str | None = None
        self._asked_at_s = float("-inf")

    async def check(self, answer: TakeApproval) -> None:
        """Refuse a release that identity did not sign. What releases nothing needs no signature.

        Raises Rejected: approval_not_genuine, or what the bus raises while identity cannot be asked for its key.
        """
        if answer.outcome != "granted":
            return
        text = signed_text(
            approval_id=answer.approval_id,
            run_id=answer.run_id,
            task_id=answer.task_id,
            attempt=answer.attempt,
            digest=answer.digest,
            user=answer.user or "",
            step=answer.step or 0,
            at_ms=answer.at_ms,
        )
        key = answer.key.lower()
        if key in await self._keys(key) and signature_ok(key, answer.signature, text):
            return
        raise Rejected("approval_not_genuine", approval_id=answer.approval_id, key=answer.key[:64])

    async def _keys(self, wanted: str) -> frozenset[str]:
        if self._pinned:
            return self._pinned
        now_s = self._clock.monotonic_s()
        if self._identitys is None or (self._identitys != wanted and now_s - self._asked_at_s >= ASK_AGAIN_S):
            self._identitys, self._asked_at_s = (await self._ask(now_s + self._patience_s)).key.lower(), now_s
        return frozenset((self._identitys,))

    async def _ask(self, until_s: float) -> ApprovalKey:
        while True:
            try:
                found: ApprovalKey = await self._bus.call(KEY, {}, into=ApprovalKey, timeout_s=ASK_S)
            except Rejected as error:
                if error.code not in AWAY or self._clock.monotonic_s() >= until_s:
                    raise
            else:
                return found
            await asyncio.sleep(AWAY_S)
