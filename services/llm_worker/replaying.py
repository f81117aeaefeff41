"""A paid call made once more, on purpose: under an id of its own, paid anew, and each of the two names the other."""

import asyncio
import hashlib
from typing import Any, Final

import msgspec

from contracts.commit import HEADER_REPLY
from contracts.errors import Rejected
from contracts.limits import LLM_TIMEOUT_GRACE_MS
from contracts.llm import HEADER_REQUEST, LlmAsked, LlmRequest, was_paid
from contracts.streams import LLM_REQUESTS, LLM_RESPONSES
from contracts.subjects import check_id, llm_request, llm_response
from services.llm_worker.compile import encode_logged
from services.llm_worker.journal import Key, corr_of, decode
from services.runtime.bus import Bus, Message
from services.runtime.event_store import Recorded
from services.runtime.ids import Ids

CORR_CHARS_MAX: Final = 200
MARK_CHARS_MAX: Final = 32
_REQUEST: Final = msgspec.json.Decoder(LlmRequest).decode


def replay_run(corr_id: str) -> str:
    """The run under which all live replays of a call stand."""
    return f"replay-{hashlib.sha256(corr_id.encode()).hexdigest()[:32]}"


class Replaying:
    """Asks again what was asked before."""

    def __init__(self, bus: Bus, ids: Ids) -> None:
        self._bus, self._ids = bus, ids

    async def live_replays(self, corr_id: str) -> list[str]:
        """The ids under which a call was replayed live."""
        pattern = llm_response(replay_run(corr_id), "*")
        return [corr_of(entry.headers) async for entry in self._bus.history(LLM_RESPONSES, pattern)]

    async def ask(self, entry: Recorded, mark: str) -> LlmAsked:
        """Have the call of a journaled answer made once more, once for each mark: say where its answer will be heard.

        Raises Rejected: not_found when its request is kept no more, bad_id.
        """
        again = await self._again(entry, mark)
        await self._store(again)
        return LlmAsked(again.run_id, again.node_id, again.corr_id, again.model_id, again.replay_of)

    async def again(self, entry: Recorded) -> dict[str, Any]:
        """Make the call of a journaled answer once more, and wait here for its answer.

        Raises Rejected not_found when its request is kept no more, and timeout.
        """
        again = await self._again(entry, self._ids.new()[-12:].lower())
        heard: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        inbox = self._bus.inbox()
        subscription = await self._bus.subscribe(inbox, lambda one: None if heard.done() else heard.set_result(one))
        try:
            await self._bus.flush()
            await self._store(again, {HEADER_REPLY: inbox})
            async with asyncio.timeout((again.params.timeout_ms + LLM_TIMEOUT_GRACE_MS) / 1000):
                answer = decode((await heard).data)
        except TimeoutError:
            raise Rejected("timeout", "the live replay is not answered yet", corr_id=again.corr_id) from None
        finally:
            await subscription.unsubscribe()
        return {**answer, "paid": was_paid(answer), "replay_of": again.replay_of}

    async def _again(self, entry: Recorded, mark: str) -> LlmRequest:
        if len(check_id(mark, "mark")) > MARK_CHARS_MAX:
            raise Rejected("bad_id", "mark is too long", field="mark", max=MARK_CHARS_MAX)
        corr_id = corr_of(entry.headers)
        request = await self._request(entry)
        return msgspec.structs.replace(
            request,
            run_id=replay_run(corr_id),
            node_id=mark,
            corr_id=f"{corr_id[:CORR_CHARS_MAX]}.live-{mark}",
            params=msgspec.structs.replace(request.params, cache=False, stream=False),
            replay_of=corr_id,
        )

    async def _store(self, again: LlmRequest, headers: dict[str, str] | None = None) -> None:
        await self._bus.store(
            llm_request(again.model_id), encode_logged(again), stream=LLM_REQUESTS, msg_id=again.corr_id,
            headers=headers,
        )  # fmt: skip

    async def _request(self, entry: Recorded) -> LlmRequest:
        key = Key.of(entry)
        seq = entry.headers.get(HEADER_REQUEST, "")
        stored = await self._bus.at(LLM_REQUESTS, int(seq)) if seq.isdecimal() else None
        if stored is not None:
            try:
                request = _REQUEST(stored.data)
            except msgspec.MsgspecError:
                request = None
            if request is not None:
                model_id = request.model_id or stored.subject.removeprefix(llm_request(""))
                return msgspec.structs.replace(request, **key._asdict(), model_id=model_id)
        raise Rejected("not_found", "the request of this call is kept no more", corr_id=key.corr_id)
