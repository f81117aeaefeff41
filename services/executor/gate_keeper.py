"""Asking identity for gates, durably: a request that cannot be stored is tried again while its gate matters."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final, Protocol

import msgspec

from contracts import approval
from contracts.commit import HEADER_BY, HEADER_CORRELATION
from contracts.errors import Rejected
from contracts.streams import COMMANDS
from contracts.subjects import command
from services.executor.readings import shown
from services.executor.run.effects import AskApproval, WithdrawApproval
from services.runtime.clock import Clock
from services.runtime.lifecycle import Log

RETRY_S: Final = 1.0
WITHDRAWALS_MAX: Final = 120
REASON_CHARS_MAX: Final = 500
_ENCODE: Final = msgspec.json.Encoder().encode


class Store(Protocol):
    """The part of the bus that gates need."""

    def store(
        self, subject: str, data: bytes, *, stream: str, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> Awaitable[Any]:
        """Store one message durably."""
        ...


class GateKeeper:
    """Opens and withdraws gates."""

    def __init__(self, bus: Store, clock: Clock, log: Log) -> None:
        self._bus, self._clock, self._log = bus, clock, log

    async def ask(self, run_id: str, effect: AskApproval) -> None:
        """Open a gate, or give up when it has expired: the run's own deadline says so then."""
        while (left_ms := effect.expires_at_ms - self._clock.now_ms()) > 0:
            # The time that is left, since identity may go by another clock.
            request = approval.RequestApproval(
                run_id, effect.task_id, effect.digest, effect.action, effect.title, effect.attempt, "executor",
                approvers=effect.approvers, timeout_ms=left_ms,
                read_from=[*map(shown, effect.read_from)], read_more=effect.read_more,
            )  # fmt: skip
            if await self._stored(run_id, effect.gate_id, "request", request):
                return
            await asyncio.sleep(RETRY_S)

    async def withdraw(self, run_id: str, effect: WithdrawApproval) -> None:
        """Say that nobody waits any more; a gate that does not hear it in some minutes of trying expires."""
        wish = approval.WithdrawApproval(effect.reason[:REASON_CHARS_MAX])
        for _ in range(WITHDRAWALS_MAX):
            if await self._stored(run_id, effect.gate_id, "withdraw", wish):
                return
            await asyncio.sleep(RETRY_S)

    async def _stored(self, run_id: str, gate_id: str, verb: str, message: approval.ApprovalMessage) -> bool:
        try:
            await self._bus.store(
                command("identity", "approval", gate_id, verb),
                _ENCODE(message),
                stream=COMMANDS,
                msg_id=f"approval:{gate_id}:{verb}",
                headers={HEADER_BY: "executor", HEADER_CORRELATION: run_id},
            )
        except Rejected as error:
            self._log.warning("gate_not_told", gate_id=gate_id, verb=verb, code=error.code)
            return False
        return True
