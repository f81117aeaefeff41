"""Answers that are to be judged, as their providers gave them: kept before they are paid, so none is asked for twice.

Judging takes its time, and what a call holds is free meanwhile, so its payment is written before its outcome. A worker
that dies in between leaves what it heard here: whoever is given the request next judges that, and asks nobody.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmAnswer, LlmUnjudged
from contracts.streams import LLM_UNJUDGED
from contracts.subjects import llm_unjudged
from services.llm_worker.big_answers import slim
from services.llm_worker.journal import Key
from services.runtime import objects
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.event_store import Recorded

_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(LlmUnjudged).decode


class KeptAnswer(NamedTuple):
    """What some worker heard for a call, and where it stands."""

    said: LlmUnjudged
    entry: Recorded


class Unjudged:
    """Keeps and finds them. `log` is structlog's."""

    def __init__(self, bus: Bus, clock: Clock, log: Any) -> None:
        self._bus, self._clock, self._log = bus, clock, log

    async def keep(
        self, key: Key, answer: LlmAnswer, request_seq: int, *, estimated: bool
    ) -> LlmAnswer | KeptAnswer | None:
        """Keep an answer. It comes back when it is kept; what was kept for the call before it comes instead.

        None when the broker takes nothing: then nobody may count on it.
        """
        try:
            short = await slim(self._bus, self._clock, self._log, answer)
            data = _ENCODE(LlmUnjudged(short, request_seq, estimated))
            subject = _subject(key)
            stored = await self._bus.store(subject, data, stream=LLM_UNJUDGED, msg_id=subject)
            heard = (await self.find_many([key])).get(key) if stored.duplicate else None
        except Rejected as error:
            self._log.warning("answer_not_kept", code=error.code, corr_id=key.corr_id)
            return None
        return answer if heard is None else heard

    async def find_many(self, keys: Iterable[Key]) -> dict[Key, KeptAnswer]:
        """What is kept for these calls: one round trip for all. Raises Rejected when the broker is away."""
        wanted = {_subject(key): key for key in keys}
        if not wanted:
            return {}
        if len(wanted) == 1:
            last = await self._bus.last(LLM_UNJUDGED, next(iter(wanted)))
            kept = {} if last is None else {last.subject: last}
        else:
            kept = await self._bus.last_of_many(LLM_UNJUDGED, list(wanted))
        found = {wanted[subject]: self._read(entry) for subject, entry in kept.items()}
        return {key: heard for key, heard in found.items() if heard is not None}

    async def find(self, key: Key) -> KeptAnswer | None:
        """The same for one call."""
        return (await self.find_many([key])).get(key)

    def _read(self, entry: Recorded) -> KeptAnswer | None:
        try:
            return KeptAnswer(_DECODE(entry.data), entry)
        except msgspec.MsgspecError:  # none of ours: one call that breaks us must not stop the others
            self._log.exception("unjudged_unreadable", code="internal", seq=entry.seq)
            return None

    async def whole(self, answer: LlmAnswer) -> LlmAnswer:
        """The answer with all of its output. Raises Rejected when that is kept no more."""
        if answer.output_ref is None:
            return answer
        output = (await objects.get(self._bus, answer.output_ref)).decode()
        return msgspec.structs.replace(answer, output=output, output_ref=None)


def _subject(key: Key) -> str:
    return llm_unjudged(hashlib.sha256(_ENCODE(key)).hexdigest()[:32])
