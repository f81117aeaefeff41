"""Gateways ask each other whether a call is under way: for a gateway that is dead nobody answers."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.policy import CallAsk, CallStanding
from contracts.rights import INBOX
from contracts.subjects import ID, tool_owner
from services.runtime.bus import Bus, Message

ASKS: Final = 2
ASK_AGAIN_S: Final = 1.0
"""A gateway that says nothing may only not be connected again after the broker was away."""
WAIT_MAX_S: Final = 10.0
ANSWER_S: Final = 2.0
_ENCODE: Final = msgspec.json.Encoder().encode
_ASK: Final = msgspec.json.Decoder(CallAsk).decode
_STANDING: Final = msgspec.json.Decoder(CallStanding).decode
Find = Callable[[str], "asyncio.Future[Any] | None"]


class Owners:
    """Answers for this gateway, and asks the others. `find` gives the future of a call that is under way here."""

    def __init__(self, bus: Bus, instance: str, find: Find) -> None:
        self._bus, self._instance, self._find = bus, instance, find
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; must be before the first call is taken."""
        await self._bus.subscribe(tool_owner(self._instance), self._hear)
        await self._bus.flush()

    async def has(self, instance: str, call_id: str, wait_s: float) -> bool:
        """Whether a gateway has the call under way; if so, not before it ended or `wait_s` passed.

        Raises Rejected when the broker is away.
        """
        if instance == self._instance:
            return False
        standing = await self._ask(instance, CallAsk(call_id, max(0.0, min(wait_s, WAIT_MAX_S))))
        return standing is not None and standing.under_way

    async def lives(self, instance: str) -> bool:
        """Whether a gateway is there at all. Raises Rejected when the broker is away."""
        return instance == self._instance or await self._ask(instance, CallAsk("")) is not None

    async def _ask(self, instance: str, question: CallAsk) -> CallStanding | None:
        """What a gateway says, None when it is dead; one that says nothing is only frozen, and may have the call."""
        if not ID.match(instance):
            return None
        for attempt in range(ASKS):
            if attempt:
                await asyncio.sleep(ASK_AGAIN_S)
            try:
                message = await self._bus.request(
                    tool_owner(instance), _ENCODE(question), timeout_s=question.wait_s + ANSWER_S
                )
            except Rejected as error:
                if error.code == "timeout":
                    return CallStanding(True)
                if error.code != "no_responders":
                    raise
                continue
            return _STANDING(message.data)
        return None

    def _hear(self, message: Message) -> None:
        if not message.reply.startswith(INBOX):
            return
        task = asyncio.get_running_loop().create_task(self._answer(message), name="call-owner")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, message: Message) -> None:
        try:
            asked = _ASK(message.data)
        except msgspec.MsgspecError:
            return
        under_way = self._find(asked.id)
        if under_way is not None and asked.wait_s > 0:
            await asyncio.wait((under_way,), timeout=min(asked.wait_s, WAIT_MAX_S))
        standing = CallStanding(self._find(asked.id) is not None)
        self._bus.publish(message.reply, _ENCODE(standing))
