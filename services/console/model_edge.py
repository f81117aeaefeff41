"""Asking a model over the public edge, `llm.req.<model>`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from contracts.errors import Rejected
from contracts.subjects import LLM_REQUEST_EDGE

if TYPE_CHECKING:
    from services.runtime.bus import Bus, Message


async def ask_model(
    bus: "Bus", model: str, request: Any, *, timeout_s: float, headers: Mapping[str, str] | None = None
) -> "Message":
    """The first reply, which is the answer. Raises llm_unavailable at once when no llm-worker listens."""
    try:
        return await bus.request(
            f"{LLM_REQUEST_EDGE}.{model}", msgspec.json.encode(request), timeout_s=timeout_s, headers=headers
        )
    except Rejected as error:
        raise (Rejected("llm_unavailable") if error.code == "no_responders" else error) from error
