"""The public edge: `llm.req.<model_id>` and `ai.llm.request`, for anyone with a NATS client.

A valid request is journaled with its caller's inbox; a worker sends the answer there. So the first and only thing an
inbox receives is the answer. What is refused is answered at once. Without an inbox both appear on `llm.resp`.
"""

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from contracts.commit import HEADER_REPLY
from contracts.errors import Rejected
from contracts.limits import LLM_TIMEOUT_GRACE_MS
from contracts.llm import HEADER_DEADLINE, LlmError, LlmRequest
from contracts.streams import LLM_REQUESTS
from contracts.subjects import ID, LLM_LEGACY, LLM_REQUEST_EDGE, LLM_RESPONSE_EDGE, llm_request, model_of
from services.llm_worker import compile as compiler
from services.llm_worker.config import Config
from services.llm_worker.flight import DEADLINE_DIGITS_MAX
from services.llm_worker.journal import Journal, Key, corr_of, settles
from services.llm_worker.replies import may_hear, reply
from services.llm_worker.resolving import Resolver
from services.runtime import telemetry
from services.runtime.bus import Bus, Message, Subscription
from services.runtime.event_store import Recorded
from services.runtime.ids import Ids
from services.runtime.publisher import Stored

QUEUE: Final = "llm-worker"
WAITING_MAX: Final = 10_000
PENDING_BYTES_MAX: Final = 64 << 20
"""What requests may hold until they are stored, and repeated ones until they are answered."""
HEADER_WRITE: Final = "Htdag-Write"
"""On a request of the edge: which write it was. A duplicate of the same write only lost its acknowledgement."""
_ENCODE: Final = msgspec.json.Encoder().encode


class _Whose(msgspec.Struct, frozen=True):
    run_id: str = ""
    node_id: str = ""


_WHOSE: Final = msgspec.json.Decoder(_Whose).decode


class _Refusal(msgspec.Struct, frozen=True):
    """A refusal: an answer with an error, and an envelope, so that either kind of client understands it."""

    ok: bool
    run_id: str
    node_id: str
    corr_id: str
    model_id: str
    error: dict[str, Any]
    attempt: int


class Edge:
    """Takes requests in. `log` is structlog's; `reused` hears of each `corr_id` that was answered once more."""

    def __init__(
        self,
        *,
        bus: Bus,
        journal: Journal,
        resolver: Resolver,
        config: Config,
        ids: Ids,
        log: Any,
        reused: Callable[[str], None],
    ) -> None:
        self._bus, self._journal, self._resolver, self._reused = bus, journal, resolver, reused
        self._config, self._ids, self._log = config, ids, log
        self._subscriptions: list[Subscription] = []
        self._pending: set[asyncio.Future[Any]] = set()
        self._pending_bytes = 0
        self._process, self._numbers = ids.new(), itertools.count(1)

    async def start(self) -> None:
        """Subscribe, in one queue group with all other workers."""
        for subject, handler in ((f"{LLM_REQUEST_EDGE}.>", self.take), (LLM_LEGACY, self.take_legacy)):
            self._subscriptions.append(await self._bus.subscribe(subject, handler, queue=QUEUE))

    async def stop(self, within_s: float) -> None:
        """Take no more; what the broker has sent here already is still taken."""
        for subscription in self._subscriptions:
            try:
                await subscription.drain(within_s)
            except TimeoutError:
                self._log.warning("edge_drain_cut", within_s=within_s)
        self._subscriptions.clear()

    async def finish(self, within_s: float) -> None:
        """Wait until what was taken is stored, and repeated requests have their answer."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s
        while self._pending and loop.time() < end_s:
            await asyncio.wait(self._pending, timeout=end_s - loop.time())

    def take(self, message: Message) -> None:
        """One request on `llm.req.<model_id>`."""
        message = self._harmless(message)
        model_id = model_of(message.subject, LLM_REQUEST_EDGE)
        try:
            request = compiler.compile_request(
                message.data,
                subject_model=model_id,
                new_id=self._ids.new,
                bytes_max=self._config.request_bytes_max,
                message_id=message.headers.get("Nats-Msg-Id", ""),
            )
            self._accept(message, request)
        except Rejected as error:
            self._refuse(message, error, model_id)

    def take_legacy(self, message: Message) -> None:
        """One request on the old path."""
        message = self._harmless(message)
        try:
            request = compiler.compile_legacy(
                message.data,
                new_id=self._ids.new,
                bytes_max=self._config.request_bytes_max,
                message_id=message.headers.get("Nats-Msg-Id", ""),
            )
            self._accept(message, request)
        except Rejected as error:
            self._refuse(message, error, "")

    def _harmless(self, message: Message) -> Message:
        """The same message, without a reply subject that is no inbox: its answer stands in the journal only."""
        if not message.reply or may_hear(message.reply):
            return message
        self._log.warning("reply_dropped", subject=message.reply[:100], reason="not an inbox")
        return message._replace(reply="")

    def _accept(self, message: Message, request: LlmRequest) -> None:
        self._resolver.resolve(request)
        size = len(message.data)
        if len(self._pending) >= WAITING_MAX or self._pending_bytes + size > PENDING_BYTES_MAX:
            raise Rejected("mailbox_full", "too many requests wait to be stored")
        write = f"{self._process}-{next(self._numbers)}"
        stored = self._store(message, request, request.corr_id, write)
        self._hold(stored, size)
        stored.add_done_callback(partial(self._see_to, message, request, write))

    def _hold(self, pending: "asyncio.Future[Any]", size: int) -> None:
        self._pending.add(pending)
        self._pending_bytes += size
        pending.add_done_callback(partial(self._let_go, size))

    def _let_go(self, size: int, pending: "asyncio.Future[Any]") -> None:
        self._pending.discard(pending)
        self._pending_bytes -= size

    def _store(self, message: Message, request: LlmRequest, msg_id: str, write: str) -> "asyncio.Future[Stored]":
        headers = {HEADER_WRITE: write}
        if message.reply:
            headers[HEADER_REPLY] = message.reply
        deadline = message.headers.get(HEADER_DEADLINE, "")
        if deadline.isdecimal() and len(deadline) <= DEADLINE_DIGITS_MAX:
            headers[HEADER_DEADLINE] = deadline
        trace = telemetry.extract(message.headers)
        if trace:
            headers[telemetry.TRACEPARENT] = trace
        data = compiler.encode_logged(request)
        return self._bus.store(llm_request(request.model_id), data, stream=LLM_REQUESTS, msg_id=msg_id, headers=headers)

    def _see_to(self, message: Message, request: LlmRequest, write: str, stored: "asyncio.Future[Stored]") -> None:
        """After the write: nothing, when it is new; else find the answer of the call that came before."""
        error = None if stored.cancelled() else stored.exception()
        if isinstance(error, Rejected):
            self._refuse(message, error, request.model_id, request)
        elif error is not None:
            self._log.error("llm_not_stored", corr_id=request.corr_id, exc_info=error)
        elif not stored.cancelled() and stored.result().duplicate and message.reply:
            again = self._answer_again(message, request, write, stored.result().seq)
            self._hold(asyncio.create_task(again, name="llm-answer-again"), len(message.data))

    async def _answer_again(self, message: Message, request: LlmRequest, write: str, first_seq: int) -> None:
        try:
            first = await self._bus.at(LLM_REQUESTS, first_seq)
            if first is not None and first.headers.get(HEADER_WRITE) == write:
                return  # it came before as this very write: a worker answers it
            reply(self._bus, self._log, message.reply, await self._earlier_answer(message, request, write, first))
            self._reused(request.corr_id)
        except Rejected as error:
            self._refuse(message, error, request.model_id, request)
        except Exception:  # the edge of one request: whoever asked must not wait for ever
            self._log.exception("llm_not_answered_again", corr_id=request.corr_id)
            self._refuse(message, Rejected("internal"), request.model_id, request)

    async def _first_of(self, request: LlmRequest, first: Recorded | None) -> Key:
        """Under which run and node this `corr_id` came first: that is where its answer stands."""
        key = Key(request.run_id, request.node_id, request.corr_id)
        if first is not None:
            said = _WHOSE(first.data)
            return Key(said.run_id, said.node_id, key.corr_id)
        if await self._journal.find(key) is None:
            answered = await self._journal.scan(key.corr_id, None, None)
            if answered is not None:
                return Key.of(answered)
        return key

    async def _earlier_answer(self, message: Message, request: LlmRequest, write: str, first: Recorded | None) -> bytes:
        """The same `corr_id` came before: reply what it was answered, or what it will be."""
        key = await self._first_of(request, first)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def hear(heard: Message) -> None:
            if corr_of(heard.headers) == key.corr_id and not answered.done():
                answered.set_result(heard.data)

        # Listening begins before looking, so that an answer cannot fall between.
        subscription = await self._bus.subscribe(f"{LLM_RESPONSE_EDGE}.{key.run_id}.{key.node_id}", hear)
        try:
            await self._bus.flush()
            entry = await self._journal.find(key)
            if entry is not None and settles(entry, 0):
                return entry.data
            if entry is not None:
                # It failed in a way that may pass: ask once more, one time for all who ask now.
                await self._store(message._replace(reply=""), request, f"{key.corr_id}:after:{entry.seq}", write)
            wait_ms = request.params.timeout_ms + LLM_TIMEOUT_GRACE_MS
            async with asyncio.timeout(wait_ms / 1000):
                return await answered
        except TimeoutError:
            raise Rejected("timeout", "the earlier call of this corr_id has not been answered") from None
        finally:
            await subscription.unsubscribe()

    def _refuse(self, message: Message, error: Rejected, model_id: str, request: LlmRequest | None = None) -> None:
        if request is not None:
            key = (request.run_id, request.node_id, request.corr_id)
            answer = LlmError(*key, model_id, error.to_wire(), request.attempt)
        else:
            answer = compiler.refusal(message.data, error, model_id=model_id)
            if not answer.corr_id:  # always out, also where none came in or none could be read
                corr_id = message.headers.get("Nats-Msg-Id") or self._ids.new()
                answer = msgspec.structs.replace(answer, corr_id=corr_id)
        self._log.info("llm_refused", code=error.code, model=model_id, corr_id=answer.corr_id)
        data = _ENCODE(_Refusal(ok=False, **msgspec.structs.asdict(answer)))
        if message.reply:
            reply(self._bus, self._log, message.reply, data)
        elif ID.match(answer.run_id) and ID.match(answer.node_id):
            # Nobody waits: watchers of the node hear it. It is no answer of a call, so it is not journaled.
            self._bus.publish(f"{LLM_RESPONSE_EDGE}.{answer.run_id}.{answer.node_id}", data)
