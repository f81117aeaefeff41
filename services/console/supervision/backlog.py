"""What waits in the stream of LLM requests: no worker has taken it, so the broker alone knows how much."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from contracts.errors import Rejected
from contracts.streams import CONSUMERS, LLM_REQUESTS

if TYPE_CHECKING:
    from services.runtime.bus import Bus

CONSUMER = next(spec.name for spec in CONSUMERS if spec.stream == LLM_REQUESTS)


class Backlog(NamedTuple):
    """How many requests wait, and for how long the oldest has."""

    pending: int
    wait_ms: int


async def pending_requests(bus: "Bus") -> Backlog:
    """Ask the broker. Both times are of its clock. Raises Rejected when it is away."""
    info = await bus.api(f"CONSUMER.INFO.{LLM_REQUESTS}.{CONSUMER}")
    pending = int(info["num_pending"])
    if not pending:
        return Backlog(0, 0)
    try:
        wanted = {"seq": int(info["delivered"]["stream_seq"]) + 1, "next_by_subj": ">"}
        oldest: dict[str, Any] = (await bus.api(f"STREAM.MSG.GET.{LLM_REQUESTS}", wanted))["message"]
    except Rejected:
        return Backlog(pending, 0)  # it has been taken, or has grown too old, in between
    waited = datetime.fromisoformat(info["ts"]) - datetime.fromisoformat(oldest["time"])
    return Backlog(pending, max(0, int(waited.total_seconds() * 1000)))
