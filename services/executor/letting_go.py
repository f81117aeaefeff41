"""Letting go of LLM calls that nobody waits for any more: the wish is kept, so that it outlives whoever hears it."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final, Protocol

import msgspec

from contracts.errors import Rejected
from contracts.requests import CorrRef
from contracts.streams import LLM_WITHDRAWALS
from contracts.subjects import LLM_CANCEL, llm_withdrawn
from services.runtime.lifecycle import Log

RETRY_S: Final = 1.0
TRIES_MAX: Final = 120
_ENCODE: Final = msgspec.json.Encoder().encode


class Voice(Protocol):
    """The part of the bus that wishes need."""

    def store(
        self, subject: str, data: bytes, *, stream: str, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> Awaitable[Any]:
        """Store one message durably."""
        ...

    def publish(self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Send one message."""
        ...


class LettingGo:
    """Says to the workers which calls they need not end."""

    def __init__(self, bus: Voice, log: Log) -> None:
        self._bus, self._log = bus, log

    async def of(self, run_id: str, corr_id: str, node_id: str) -> None:
        """Say the wish, keep it, and say it once more; while it cannot be kept, say it again for some minutes.

        At once, so that no slow disk lets a call go on; and behind the keeping, so that whoever looked for it before
        that, to take the call over, hears it. There is no answer to it: a call that cannot be stopped any more only
        costs what it costs.
        """
        wish = _ENCODE(CorrRef(corr_id, run_id=run_id, node_id=node_id))
        for _ in range(TRIES_MAX):
            self._say(corr_id, wish)
            if await self._kept(corr_id, wish):
                self._say(corr_id, wish)
                return
            await asyncio.sleep(RETRY_S)

    async def _kept(self, corr_id: str, wish: bytes) -> bool:
        try:
            await self._bus.store(llm_withdrawn(corr_id), wish, stream=LLM_WITHDRAWALS, msg_id=f"withdrawn:{corr_id}")
        except Rejected as error:
            self._log.warning("withdrawal_not_kept", corr_id=corr_id, code=error.code)
            return False
        return True

    def _say(self, corr_id: str, wish: bytes) -> None:
        try:
            self._bus.publish(LLM_CANCEL, wish)
        except Rejected as error:
            self._log.warning("llm_not_cancelled", corr_id=corr_id, code=error.code)
