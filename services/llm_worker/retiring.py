"""A worker that is to go, but has calls under way: it takes no more, and nobody stops it before they have ended."""

import asyncio
from typing import Any, Final

import msgspec

from contracts.llm import LlmDrain
from services.llm_worker.edge import Edge
from services.llm_worker.health import Heart
from services.llm_worker.worker import Worker
from services.runtime.bus import Message

STOP_TAKING_S: Final = 5.0
_DECODE: Final = msgspec.json.Decoder(LlmDrain).decode


class Retiring:
    """Hears who is to go. Its beats say `draining` from then on; whoever asked for it stops the process."""

    def __init__(self, *, worker_id: str, heart: Heart, worker: Worker, edge: Edge, log: Any) -> None:
        self._worker_id, self._heart, self._worker, self._edge, self._log = worker_id, heart, worker, edge, log
        self._going: asyncio.Task[None] | None = None

    def take(self, message: Message) -> None:
        """One wish; it may be another worker's."""
        try:
            wish = _DECODE(message.data)
        except msgspec.MsgspecError:
            return
        if wish.worker_id == self._worker_id and self._going is None:
            self._going = asyncio.create_task(self._go(), name="retire")

    async def _go(self) -> None:
        self._log.info("retiring", in_flight=len(self._worker.flights))
        self._heart.beat("draining")
        try:
            await self._edge.stop(STOP_TAKING_S)
            await self._worker.retire(STOP_TAKING_S)
        except TimeoutError:
            self._log.warning("retire_cut", hint="what the broker had sent here already comes again elsewhere")
