"""Walks the whole chain: every hash, every number, every signature; says where it is broken."""

import asyncio
from collections import deque
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.policy import AuditCheckpoint, AuditVerified
from contracts.streams import EVENTS_POLICY_GATEWAY
from services.policy_gateway.audit import chain
from services.policy_gateway.audit.chain import Broken, Head
from services.policy_gateway.audit.log import AUDIT_SUBJECT, DECODE_RAW
from services.policy_gateway.audit.signing import good_signature
from services.runtime.bus import Bus

FORGED_SHOWN_MAX: Final = 100


async def verify(bus: Bus, trusted: frozenset[str]) -> AuditVerified:
    """Check everything that is stored; only signatures by `trusted` keys count. Raises Rejected("audit_broken")."""
    walk = _Walk(trusted)
    async for record in bus.history(EVENTS_POLICY_GATEWAY, AUDIT_SUBJECT):
        await asyncio.sleep(0)  # a long log is walked while calls are judged
        if record.forged:
            walk.passed(record.seq)
            continue
        try:
            walk.take(record.data)
        except Broken as broken:
            raise Rejected(
                "audit_broken", f"the chain breaks at entry {broken.n}: {broken.reason}", n=broken.n,
                reason=broken.reason, seq=record.seq, signed_up_to=walk.signed_up_to,
            ) from broken  # fmt: skip
    return walk.report()


class _Walk:
    def __init__(self, trusted: frozenset[str]) -> None:
        self._trusted = trusted
        self._head = Head()
        self._checkpoints = 0
        self._keys: dict[str, None] = {}
        self.signed_up_to = 0
        self._forged = 0
        self._forged_at: deque[int] = deque(maxlen=FORGED_SHOWN_MAX)

    def passed(self, seq: int) -> None:
        """A smuggled message is no entry: the chain goes on behind it."""
        self._forged += 1
        self._forged_at.append(seq)

    def take(self, data: bytes) -> None:
        try:
            entries = DECODE_RAW(data).events
        except msgspec.MsgspecError as error:
            raise Broken(self._head.n + 1, "something that is no commit stands here") from error
        for fields in entries:
            self._head = chain.check(fields, self._head)
            if fields.get("type") == "audit.checkpoint.v1":
                self._check_signature(fields)

    def _check_signature(self, fields: dict[str, Any]) -> None:
        try:
            checkpoint = msgspec.convert(fields, AuditCheckpoint)
        except msgspec.ValidationError as error:
            raise Broken(self._head.n, "the checkpoint cannot be read") from error
        if not good_signature(checkpoint):
            raise Broken(checkpoint.n, "the signature is wrong")
        if self._trusted and checkpoint.key not in self._trusted:
            raise Broken(checkpoint.n, f"it was signed with a strange key, {checkpoint.key[:16]}…")
        self._keys[checkpoint.key] = None
        self._checkpoints += 1
        self.signed_up_to = checkpoint.n - 1

    def report(self) -> AuditVerified:
        return AuditVerified(
            self._head.n, self._checkpoints, self.signed_up_to, self._head.hash if self._head.n else "", [*self._keys],
            EVENTS_POLICY_GATEWAY, self._forged, [*self._forged_at],
        )  # fmt: skip
