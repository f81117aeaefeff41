"""Gateways ask each other whether a call is under way, and to end it: for one that is dead nobody answers."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.policy import CallAsk, CallOf, CallStanding
from contracts.rights import is_inbox
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
Withdraw = Callable[[str, CallOf], Awaitable[None]]


class Owners:
    """Answers for this gateway, and asks the others. `find` gives the future of a call that is under way here.

    `withdraw` ends a call here whose task is over; it raises Rejected when that is not so.
    """

    def __init__(self, bus: Bus, instance: str, find: Find, withdraw: Withdraw) -> None:
        self._bus, self._instance, self._find, self._withdraw = bus, instance, find, withdraw
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

    async def withdrawn(self, instance: str, call_id: str, of: CallOf, wait_s: float) -> bool:
        """Whether a call of a task that is over has ended at this gateway, by now or within `wait_s`.

        Raises Rejected: conflict when its task goes on (as this gateway sees it), or when the broker is away.
        """
        if instance != self._instance:
            standing = await self._ask(instance, CallAsk(call_id, max(0.0, min(wait_s, WAIT_MAX_S)), of))
            return standing is None or not standing.under_way
        await self._withdraw(call_id, of)
        return not (await self._stand(CallAsk(call_id, wait_s))).under_way

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
        if not is_inbox(message.reply):
            return  # no gateway asks so, and whoever does must not have us speak elsewhere
        task = asyncio.get_running_loop().create_task(self._answer(message), name="call-owner")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, message: Message) -> None:
        try:
            asked = _ASK(message.data)
        except msgspec.MsgspecError:
            return
        if asked.of is not None:
            with suppress(Rejected):  # its task goes on, or nobody can say: so does the call
                await self._withdraw(asked.id, asked.of)
        self._bus.publish(message.reply, _ENCODE(await self._stand(asked)))

    async def _stand(self, asked: CallAsk) -> CallStanding:
        """What there is to say of a call here, once it has ended or the time of the question is over."""
        under_way = self._find(asked.id)
        if under_way is not None and asked.wait_s > 0:
            await asyncio.wait((under_way,), timeout=min(asked.wait_s, WAIT_MAX_S))
        return CallStanding(self._find(asked.id) is not None)
