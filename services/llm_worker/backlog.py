"""Whether a call still waits to be answered although no worker has it: asked for when somebody wants it stopped."""

from typing import Final

import msgspec

from contracts.streams import LLM_REQUESTS, ConsumerSpec
from contracts.subjects import llm_request
from services.llm_worker.compile import ADHOC_NODE, adhoc_run
from services.llm_worker.journal import Journal, Key, settles
from services.runtime.bus import Bus
from services.runtime.event_store import Recorded

LOOKED_AT_MAX: Final = 1_000
"""Of the requests that are not all answered, so many are looked at, from the oldest on: one answer of the broker."""
HEADER_ID: Final = "Nats-Msg-Id"
AGAIN: Final = ":after:"
"""Behind the `corr_id` in that header: the same call, stored anew after an answer that may pass."""


class _Whose(msgspec.Struct, frozen=True):
    run_id: str = ""
    node_id: str = ""


_WHOSE: Final = msgspec.json.Decoder(_Whose).decode


class Backlog:
    """Looks into the requests that `consumer` has not settled yet."""

    def __init__(self, bus: Bus, journal: Journal, consumer: ConsumerSpec) -> None:
        self._bus, self._journal, self._consumer = bus, journal, consumer

    async def holds(self, corr_id: str) -> bool:
        """Whether a request of this call is among them and has no answer. Raises Rejected when the broker is away."""
        info = await self._bus.api(f"CONSUMER.INFO.{self._consumer.stream}.{self._consumer.name}")
        if not int(info["num_pending"]) + int(info["num_ack_pending"]):
            return False
        looked_at = 0
        async for entry in self._bus.history(LLM_REQUESTS, llm_request(">"), int(info["ack_floor"]["stream_seq"])):
            msg_id = entry.headers.get(HEADER_ID, "")
            if msg_id == corr_id or msg_id.startswith(f"{corr_id}{AGAIN}"):
                return not await self._is_answered(corr_id, entry)
            looked_at += 1
            if looked_at >= LOOKED_AT_MAX:
                break
        return False

    async def _is_answered(self, corr_id: str, request: Recorded) -> bool:
        try:
            said = _WHOSE(request.data)
        except msgspec.MsgspecError:
            return False
        key = Key(said.run_id or adhoc_run(corr_id), said.node_id or ADHOC_NODE, corr_id)
        answer = await self._journal.find(key)
        return answer is not None and settles(answer, request.seq)
