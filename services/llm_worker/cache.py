"""Answers by content: whoever allows it gets the recorded answer of the same question to the same model, for nothing.

The index holds no answers, only where the journal has them; when the journal has forgotten one, it is asked anew.
"""

import hashlib
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmAnswer, LlmAnswerPlace, LlmRequest
from contracts.streams import LLM_CACHE
from contracts.subjects import llm_cache
from services.llm_worker.journal import Journal, Key
from services.llm_worker.models import Resolved
from services.runtime.bus import Bus

_SORTED: Final = msgspec.json.Encoder(order="deterministic").encode
_ANSWER: Final = msgspec.json.Decoder(LlmAnswer).decode
_PLACE: Final = msgspec.json.Decoder(LlmAnswerPlace).decode


def digest_of(request: LlmRequest, resolved: Resolved) -> str:
    """What makes two questions the same: the model that answers, the conversation, and every parameter of content."""
    params = msgspec.structs.replace(request.params, stream=False, cache=False, timeout_ms=1, allow_unpriced=False)
    return hashlib.sha256(_SORTED((resolved.used, request.input, params))).hexdigest()


class Cache:
    """Finds and keeps answers. `log` is structlog's."""

    def __init__(self, bus: Bus, journal: Journal, log: Any) -> None:
        self._bus, self._journal, self._log = bus, journal, log

    async def find(self, request: LlmRequest, resolved: Resolved) -> LlmAnswer | None:
        """The recorded answer as the answer of this request; None when there is none, or it cannot be read now."""
        try:
            entry = await self._bus.last(LLM_CACHE, llm_cache(digest_of(request, resolved)))
            if entry is None:
                return None
            place = _PLACE(entry.data)
            recorded = await self._journal.find(Key(place.run_id, place.node_id, place.corr_id))
            answer = None if recorded is None else _ANSWER(recorded.data)
        except (Rejected, msgspec.MsgspecError) as error:
            self._log.warning("cache_unreadable", reason=str(error)[:200], corr_id=request.corr_id)
            return None
        if answer is None:
            return None
        return msgspec.structs.replace(
            answer,
            run_id=request.run_id,
            node_id=request.node_id,
            corr_id=request.corr_id,
            model_id=request.model_id,
            cost_usd_micros=0,
            latency_ms=0.0,
            cached=True,
            cached_from=answer.cached_from or answer.corr_id,
            replay_of=request.replay_of,
            disputed=None,
            attempt=request.attempt,
            abandoned_tokens=0,
            abandoned_usd_micros=0,
        )

    async def keep(self, request: LlmRequest, resolved: Resolved) -> None:
        """Remember where the answer of this request will stand. Losing this costs a payment, never an answer."""
        digest = digest_of(request, resolved)
        data = msgspec.json.encode(LlmAnswerPlace(request.run_id, request.node_id, request.corr_id))
        try:
            await self._bus.store(llm_cache(digest), data, stream=LLM_CACHE, msg_id=f"{digest}:{request.corr_id}")
        except Rejected as error:
            self._log.warning("cache_unwritable", code=error.code, corr_id=request.corr_id)
