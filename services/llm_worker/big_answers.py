"""Answers that are too big to travel: their output goes to the object store, and the answer refers to it."""

from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import OUTPUT_PREVIEW_CHARS, OUTPUT_REF_OVER_BYTES
from contracts.llm import LlmAnswer, OutputRef
from contracts.streams import ANSWER_BUCKET
from services.runtime import objects
from services.runtime.bus import Bus
from services.runtime.clock import Clock

HEADROOM_BYTES: Final = 16_384
"""An answer must fit into a commit of its run too, beside that commit's own words and headers."""


async def slim(bus: Bus, clock: Clock, log: Any, answer: LlmAnswer) -> LlmAnswer:
    """The answer as it can be journaled: as it is, or with the beginning of its output and a reference to all of it.

    When the object store takes nothing the answer stays as it is; the journal may still have room for it.
    """
    if len(answer.output) * 4 < OUTPUT_REF_OVER_BYTES // 2:
        return answer  # surely small, without encoding it once more
    size = len(msgspec.json.encode(answer.output))
    if size <= min(OUTPUT_REF_OVER_BYTES, bus.payload_max - HEADROOM_BYTES):
        return answer
    ref = await put_aside(bus, clock, log, answer)
    if ref is None:
        return answer
    return msgspec.structs.replace(answer, output=answer.output[:OUTPUT_PREVIEW_CHARS], output_ref=ref)


async def put_aside(bus: Bus, clock: Clock, log: Any, answer: LlmAnswer) -> OutputRef | None:
    """Where all of the output is kept from now on; None when the object store takes nothing."""
    try:
        return await objects.put(bus, clock, ANSWER_BUCKET, answer.output.encode())
    except Rejected as error:
        log.warning("answer_not_put_aside", code=error.code, corr_id=answer.corr_id, chars=len(answer.output))
        return None
