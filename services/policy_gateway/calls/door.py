"""Where tool calls come in: each in its own bounded task, answered in the one envelope, and only to inboxes.

The subject says role and tool; a body never does. A caller names the subject that its answer goes to, so anything but
an inbox is refused: an answer must not be able to command the broker.
"""

import asyncio
from typing import Any, Final, NamedTuple

import msgspec

from contracts import reply as envelope
from contracts.commit import HEADER_BY, HEADER_CORRELATION
from contracts.errors import Rejected
from contracts.policy import ToolCall
from contracts.rights import is_inbox
from contracts.subjects import TOOL_CALLS, TOOL_CALLS_OF_TASKS, ToolSubject, parse_tool_call
from contracts.tools import TOOLS
from services.policy_gateway.calls.answers import Answer, failed
from services.policy_gateway.calls.call import Call, id_of
from services.policy_gateway.calls.calls import Calls
from services.policy_gateway.calls.unjudged import Unjudged
from services.policy_gateway.places import share
from services.runtime import intake, telemetry
from services.runtime.bus import Bus, Message, Subscription
from services.runtime.genuine import redirected
from services.runtime.ids import Ids
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics
from services.runtime.rpc import HEADER_CHARS_MAX, PRINCIPAL_DEFAULT

BYTES_HELD_MAX: Final = 128 << 20
UNSUBSCRIBE_S: Final = 2.0
RETRY_AFTER_S: Final = 1.0
"""Tells a caller whose call found no room that nothing has begun: it may ask again."""
_DECODER: Final = msgspec.json.Decoder(ToolCall)


class _Held(NamedTuple):
    """How many calls a role has here, and their bytes."""

    role: str
    calls: int
    bytes: int


class Door:
    """Takes calls as a member of the queue group, and sends their answers."""

    def __init__(
        self,
        *,
        bus: Bus,
        calls: Calls,
        unjudged: Unjudged,
        ids: Ids,
        metrics: Metrics,
        log: Log,
        roles: Any,
        held_max: int,
        group: str,
    ) -> None:
        self._bus, self._calls, self._unjudged, self._ids = bus, calls, unjudged, ids
        self._metrics, self._log, self._roles = metrics, log, roles
        self._held_max, self._group = held_max, group
        self._subscriptions: list[Subscription] = []
        self._tasks: dict[asyncio.Task[None], _Held] = {}
        self._held: dict[str, _Held] = {}

    async def open(self) -> None:
        """Take calls from now on."""
        for calls in (TOOL_CALLS, TOOL_CALLS_OF_TASKS):
            self._subscriptions.append(await self._bus.subscribe(calls, self._take, queue=self._group))
        await self._bus.flush()

    async def close(self) -> None:
        """Take no more: others of the queue group get them. What was delivered is still handled."""
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            for subscription in subscriptions:
                await subscription.drain(UNSUBSCRIBE_S)
        except (TimeoutError, OSError) as error:
            # Without a connection nothing comes in any more either.
            self._log.warning("unsubscribe_failed", reason=type(error).__name__)

    async def answered(self, within_s: float) -> None:
        """Wait until every answer is sent."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)

    def _take(self, message: Message) -> None:
        if redirected(message.headers, message.reply):
            self._log.error("call_redirected", subject=message.subject)
            self._unjudged.count("redirected")
            return
        if not is_inbox(message.reply):
            # Nobody could be told what came of it, and what it did would be anybody's.
            self._log.warning("reply_not_inbox", subject=message.subject, reply=message.reply[:200])
            self._unjudged.count("reply_not_inbox")
            return
        token = message.subject.split(".")[3]
        # Tokens of a subject are the caller's own words: those that are no role share one place in line.
        one = _Held(token if token in self._roles() else "", 1, len(message.data))
        if not self._has_room(one):
            full = Rejected("mailbox_full", "too many tool calls wait here", retry_after_s=RETRY_AFTER_S)
            self._unjudged.count(full.code)
            self._send(message.reply, failed(full))
            return
        task = asyncio.get_running_loop().create_task(self._answer(message), name="tool-call")
        self._tasks[task] = one
        self._add(one, 1)
        self._metrics.set("htdag_tool_calls_running", len(self._tasks))
        task.add_done_callback(self._forget)

    def _has_room(self, one: _Held) -> bool:
        """Whether there is room for it, and its role does not have its share of the room already."""
        mine = self._held.get(one.role, _Held(one.role, 0, 0))
        calls, size = len(self._tasks), sum(held.bytes for held in self._held.values())
        if calls >= self._held_max or mine.calls >= share(self._held_max):
            return False
        # The largest call must find room while nothing else is here.
        return (not calls or size + one.bytes <= BYTES_HELD_MAX) and (
            not mine.calls or mine.bytes + one.bytes <= share(BYTES_HELD_MAX)
        )

    def _add(self, one: _Held, sign: int) -> None:
        held = self._held.pop(one.role, _Held(one.role, 0, 0))
        held = _Held(one.role, held.calls + sign, held.bytes + sign * one.bytes)
        if held.calls:
            self._held[one.role] = held

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._add(self._tasks.pop(task), -1)
        self._metrics.set("htdag_tool_calls_running", len(self._tasks))

    async def _answer(self, message: Message) -> None:
        subject = parse_tool_call(message.subject)
        with telemetry.span(f"process {TOOL_CALLS}", kind="consumer", headers=message.headers):
            try:
                call = self._read(message, subject)
            except Rejected as error:
                by = message.headers.get(HEADER_BY, PRINCIPAL_DEFAULT)[:HEADER_CHARS_MAX]
                await self._unjudged.malformed(subject.role, subject.tool, by, message.data, error)
                answer = failed(error)
            else:
                heard = await self._calls.handle(call)
                if heard is None:
                    return
                answer = heard
        self._send(message.reply, answer)
        # Tokens of a subject are the caller's own words: only those that exist become labels.
        role = subject.role if subject.role in self._roles() else "unknown"
        tool = subject.tool if subject.tool in TOOLS else "unknown"
        self._metrics.inc("htdag_tool_calls_total", role=role, tool=tool, outcome=answer.code or "ok")

    def _read(self, message: Message, subject: ToolSubject) -> Call:
        arrived_s = asyncio.get_running_loop().time()
        asked = intake.read(message.data, _DECODER)
        if subject.of_task and asked.task is None:
            raise Rejected("bad_request", "this subject is for calls of tasks", field="task")
        for name in (HEADER_BY, HEADER_CORRELATION):
            if len(message.headers.get(name, "")) > HEADER_CHARS_MAX:
                raise Rejected("too_large", f"the header {name} is too long", field=name, max=HEADER_CHARS_MAX)
        call_id = id_of(asked.task, self._ids)
        by = message.headers.get(HEADER_BY) or PRINCIPAL_DEFAULT
        corr = message.headers.get(HEADER_CORRELATION) or call_id
        return Call(call_id, subject.role, subject.tool, asked, by, corr, arrived_s)

    def _send(self, inbox: str, answer: Answer) -> None:
        data = answer.encoded()
        try:
            if len(data) > self._bus.payload_max:
                data = envelope.refused(Rejected("too_large", "the answer is larger than the broker carries"))
            self._bus.publish(inbox, data)
        except Rejected as error:
            # The connection is gone; the caller's own deadline tells it so.
            self._log.warning("reply_not_sent", code=error.code)
