"""What the ledger's state has forgotten, its log still knows: whether a call was paid that is delivered once more.

The state remembers the newest payments only. At full speed they are those of a few seconds, and the broker waits longer
before it gives a dead worker's request to another one.
"""

from contracts.codec import CommitCodec
from contracts.ledger import LedgerEvent, LlmPaid
from contracts.streams import EVENTS_LLM_WORKER
from services.llm_worker.ledger.book import SUBJECT
from services.runtime.bus import Bus
from services.runtime.direct_get import STORED_AT
from services.runtime.event_store import Recorded


class Past:
    """Reads the log of the ledger."""

    def __init__(self, bus: Bus, codec: CommitCodec[LedgerEvent]) -> None:
        self._bus, self._codec = bus, codec

    async def payment(self, corr_id: str, request_seq: int, since: Recorded) -> LlmPaid | None:
        """The payment of a call that is not older than `since`. Raises Rejected when the broker is away."""
        at = since.headers.get(STORED_AT, "")
        first = await self._bus.first_since(EVENTS_LLM_WORKER, SUBJECT, at) if at else 1
        if not first:
            return None
        async for record in self._bus.history(EVENTS_LLM_WORKER, SUBJECT, first - 1):
            for event in self._codec.decode(record.data, skip_unknown=True).events:
                if isinstance(event, LlmPaid) and (event.corr_id, event.request_seq) == (corr_id, request_seq):
                    return event
        return None
