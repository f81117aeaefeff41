"""Whether another worker has a call under way, when the broker may have given the same request to two of us.

It does so when it heard nothing of a worker for longer than the acknowledgement deadline, above all after it was away
itself; it may have forgotten then that it delivered the request before. So the others are asked: once usually, and
for a while after our connection came back, because theirs may come back later.
"""

import asyncio
from collections import OrderedDict
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import LlmClaim
from contracts.streams import LLM_REQUESTS
from contracts.subjects import LLM_CLAIM
from services.llm_worker.flight import Flight, Flights
from services.llm_worker.replies import reply
from services.runtime.bus import Bus, Message
from services.runtime.pull import Delivery

ANSWER_S: Final = 0.25
SETTLE_S: Final = 2.5
"""So long after our connection came back, a worker that says nothing may only not be connected yet."""
RECENT_S: Final = 30.0
GIVEN_BACK_REMEMBERED_MAX: Final = 10_000
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(LlmClaim).decode


async def is_held(bus: Bus, corr_id: str, worker_id: str) -> bool:
    """Whether any worker says that it has this call under way; `worker_id` asks. Raises Rejected, the broker away."""
    try:
        await bus.request(LLM_CLAIM, _ENCODE(LlmClaim(corr_id, worker_id)), timeout_s=ANSWER_S)
    except Rejected as error:
        if error.code not in ("timeout", "no_responders"):
            raise
        return False
    return True


class Claims:
    """Asks the other workers, and answers them."""

    def __init__(self, *, bus: Bus, flights: Flights, worker_id: str, log: Any) -> None:
        self._bus, self._flights, self._worker_id, self._log = bus, flights, worker_id, log
        self._reconnects = -1
        self._connected_s = 0.0
        self._stored_before: asyncio.Task[int] | None = None
        self._given_back: OrderedDict[int, int] = OrderedDict()

    async def start(self) -> None:
        """Listen to the questions of the others, and note what was stored before we began. Raises Rejected."""
        await self._bus.subscribe(LLM_CLAIM, self.hear)
        self._note_connection()
        await self._newest_at_connect()

    def in_doubt(self, delivery: Delivery) -> bool:
        """Whether somebody else may have this request too; to be asked when it arrives."""
        now_s = self._note_connection()
        return self._with_others(delivery) or now_s < self._connected_s + RECENT_S

    async def may_be_late(self, delivery: Delivery) -> bool:
        """Whether we may not have heard all that was said of this request. Raises Rejected when the broker is away."""
        self._note_connection()
        return self._with_others(delivery) or delivery.seq <= await self._newest_at_connect()

    def gave_back(self, delivery: Delivery) -> None:
        """This worker gives a request back: after that delivery nobody has it."""
        self._given_back[delivery.seq] = self._given_back.pop(delivery.seq, 0) + 1
        if len(self._given_back) > GIVEN_BACK_REMEMBERED_MAX:
            self._given_back.popitem(last=False)

    async def elsewhere(self, flight: Flight) -> bool:
        """Whether another worker has this call under way. Raises Rejected when the broker is away."""
        first = flight.waiters[0].delivery
        if first.seq > await self._newest_at_connect() and not self._with_others(first):
            return False  # it was stored while all were connected
        loop = asyncio.get_running_loop()
        while True:
            asked_s = loop.time()
            if await is_held(self._bus, flight.key.corr_id, self._worker_id):
                return True
            if asked_s > self._connected_s + SETTLE_S:
                return False
            await asyncio.sleep(max(0.0, asked_s + ANSWER_S - loop.time()))

    def hear(self, message: Message) -> None:
        """The question of a worker. Of two that ask at the same time, the one with the smaller id keeps the call."""
        try:
            claim = _DECODE(message.data)
        except msgspec.MsgspecError:
            return
        flight = self._flights.of(claim.corr_id)
        if flight is None or claim.worker_id == self._worker_id:
            return
        if flight.phase == "waiting" and self._worker_id > claim.worker_id:
            return
        reply(self._bus, self._log, message.reply, b"true")

    def _note_connection(self) -> float:
        """Forget what was known before the connection was lost; the time on the loop's clock."""
        reconnects, now_s = self._bus.client.stats["reconnects"], asyncio.get_running_loop().time()
        if reconnects != self._reconnects:
            self._reconnects, self._connected_s, self._stored_before = reconnects, now_s, None
            self._given_back.clear()
        return now_s

    def _with_others(self, delivery: Delivery) -> bool:
        """Whether it was delivered before, and not always given back by this worker itself."""
        return delivery.delivered - 1 > self._given_back.get(delivery.seq, 0)

    async def _newest_at_connect(self) -> int:
        """The newest request soon after we connected: what is behind it was never with anybody before."""
        if self._stored_before is None or (self._stored_before.done() and self._stored_before.exception()):
            self._stored_before = asyncio.create_task(self._newest(), name="llm-newest-request")
        if self._stored_before.done():
            return self._stored_before.result()
        return await asyncio.shield(self._stored_before)

    async def _newest(self) -> int:
        info = await self._bus.api(f"STREAM.INFO.{LLM_REQUESTS}")
        return int(info["state"]["last_seq"])
