"""A paid call asked once more from the console, so that its answer is heard from whichever worker gives it.

The new call is named here before it is asked for: who serves the wish may die over it, and the same name said to
another worker is the same call. Its answer is what the journal has; what is said on the public edge only tells when.
"""

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmAsked, was_paid
from contracts.requests import RepeatRef
from contracts.streams import LLM_RESPONSES
from contracts.subjects import LLM_RESPONSE_EDGE, llm_response
from services.console.asking import first_answer

if TYPE_CHECKING:
    from services.console.connection import Console

LOOK_EVERY_S: Final = 2.0
"""So often the journal is looked into without being told: what was said while we were not connected is said once."""
_ANSWER: Final = msgspec.json.Decoder(dict[str, Any]).decode


async def replayed_live(console: "Console", corr_id: str, run_id: str | None, node_id: str | None) -> dict[str, Any]:
    """The answer of the new call, whatever it is. Raises timeout, with the id to look at, when none comes in time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + console.timeout_s
    wish = RepeatRef(corr_id, secrets.token_hex(6), run_id, node_id)
    asked, _ = await first_answer(lambda: console.call("llm-worker.llm.repeat", wish))
    try:
        async with asyncio.timeout_at(end_s):
            answer = await _answer(console, asked)
    except TimeoutError:
        hint = f"it goes on: `htdag llm replay {asked.corr_id}` has its answer then; asking anew would pay anew"
        raise Rejected(
            "timeout", f"no answer within {console.timeout_s:g} s", hint=hint, corr_id=asked.corr_id, replay_of=corr_id
        ) from None
    return {**answer, "paid": was_paid(answer), "replay_of": corr_id}


async def _answer(console: "Console", asked: LlmAsked) -> dict[str, Any]:
    told = asyncio.Event()
    subscription = await console.bus.subscribe(
        f"{LLM_RESPONSE_EDGE}.{asked.run_id}.{asked.node_id}", lambda _: told.set()
    )
    try:
        await console.bus.flush()
        while True:
            told.clear()
            kept = await console.bus.last(LLM_RESPONSES, llm_response(asked.run_id, asked.node_id))
            if kept is not None:
                return _ANSWER(kept.data)
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await told.wait()
            except TimeoutError:
                continue
    finally:
        await subscription.unsubscribe()
