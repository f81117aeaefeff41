"""Requests for approval, from the durable mailbox to the gates, and answers from the gates to the runs' mailboxes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from contracts.approval import (
    ACTION_BYTES_MAX,
    APPROVAL_TIMEOUT_MAX_MS,
    APPROVERS_MAX,
    ApprovalMessage,
    RequestApproval,
    WithdrawApproval,
    action_digest,
)
from contracts.codec import UnknownType
from contracts.commit import HEADER_BY, HEADER_CORRELATION
from contracts.errors import Rejected
from contracts.limits import JSON_DEPTH_MAX, TITLE_CHARS_MAX
from contracts.streams import COMMANDS, POISON_DELIVERIES_MAX
from contracts.subjects import check_id, command, parse_mailbox
from contracts.taint import READ_FROM_MAX, fits
from services.identity.approval.decider import (
    ApprovalCommand,
    MarkAnswered,
    OpenGate,
    SendAnswer,
    WithdrawGate,
)
from services.identity.gates import ApprovalHost
from services.identity.names import key_of
from services.runtime import telemetry
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.dead_letters import DeadLetters
from services.runtime.genuine import HEADER_STREAM
from services.runtime.intake import deeper_than
from services.runtime.lifecycle import Log
from services.runtime.mailbox import Interrupted
from services.runtime.metrics import Metrics
from services.runtime.pull import Delivery
from services.runtime.surroundings import WAITED_OUT

NAK_DELAY_S: Final = 1.0
RETRY_S: Final = 1.0
_DECODE: Final = msgspec.json.Decoder(ApprovalMessage).decode
_ENCODE: Final = msgspec.json.Encoder().encode
Spawn = Callable[[Coroutine[Any, Any, Any], str], Any]


class Answers:
    """See EffectRunner: stores each answer in its run's mailbox, and tries again for as long as that fails."""

    def __init__(self, bus: Bus, log: Log) -> None:
        self._bus, self._log = bus, log
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, actor_id: str, effect: SendAnswer, done: Callable[[ApprovalCommand | None], None]) -> None:
        """Begin one."""
        task = asyncio.get_running_loop().create_task(self._send(effect, done), name=f"answer {actor_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up what is not stored; the log knows that it is owed."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _send(self, effect: SendAnswer, done: Callable[[ApprovalCommand | None], None]) -> None:
        answer = effect.answer
        subject = command("executor", "run", answer.run_id, "approval")
        while True:
            try:
                await self._bus.store(
                    subject,
                    _ENCODE(answer),
                    stream=COMMANDS,
                    msg_id=f"approval:{answer.approval_id}:{answer.outcome}",
                    headers={HEADER_BY: "identity", HEADER_CORRELATION: answer.run_id},
                )
            except Rejected as error:
                self._log.warning("answer_not_stored", approval_id=answer.approval_id, code=error.code)
                await asyncio.sleep(RETRY_S)
            else:
                done(MarkAnswered(answer.outcome))
                return


class Mailbox:
    """Hands deliveries to the gates and settles them when their commit is stored."""

    def __init__(self, bus: Bus, host: ApprovalHost, clock: Clock, metrics: Metrics, log: Log, spawn: Spawn) -> None:
        self._host, self._clock, self._spawn = host, clock, spawn
        self._dead_letters = DeadLetters(bus, metrics, log, NAK_DELAY_S)

    def take(self, delivery: Delivery) -> None:
        """Take one message in."""
        try:
            now_ms = self._clock.now_ms()
        except Rejected:  # the message is innocent
            delivery.nak(NAK_DELAY_S)
            return
        try:
            if delivery.headers.get(HEADER_STREAM) != COMMANDS:
                # Whoever has a stream can have the broker send its messages here, but none of them names this stream.
                raise Rejected("poison", "this is not how an executor asks")
            subject = parse_mailbox(delivery.subject)
            approval_id = check_id(subject.aggregate_id, "approval_id")
            if subject.aggregate != "approval":
                raise Rejected("poison", f"identity has no {subject.aggregate}")
            wish = _wish(delivery.data, now_ms)
        except Rejected as error:
            self._put_aside(delivery, error.code, error.message)
            return
        except (msgspec.MsgspecError, RecursionError) as error:
            self._put_aside(delivery, "poison", str(error))
            return
        self._host.deliver(
            approval_id,
            wish,
            message_id=delivery.headers.get("Nats-Msg-Id") or f"mailbox-{delivery.seq}",
            by=delivery.headers.get(HEADER_BY, ""),
            corr=delivery.headers.get(HEADER_CORRELATION, ""),
            trace=telemetry.extract(delivery.headers),
            settled=lambda error: self._settle(delivery, error),
        )

    def _settle(self, delivery: Delivery, error: BaseException | None) -> None:
        if error is None:
            delivery.ack()
        elif isinstance(error, Interrupted):
            delivery.nak()
        elif isinstance(error, UnknownType) or (isinstance(error, Rejected) and error.code in WAITED_OUT):
            delivery.nak(NAK_DELAY_S)
        elif delivery.delivered >= POISON_DELIVERIES_MAX:
            self._put_aside(delivery, error.code if isinstance(error, Rejected) else "poison", str(error))
        else:
            delivery.nak(NAK_DELAY_S)

    def _put_aside(self, delivery: Delivery, code: str, detail: str) -> None:
        self._spawn(self._dead_letters.put_aside(delivery, code, detail), "dead-letter")


def _wish(data: bytes, now_ms: int) -> ApprovalCommand:
    """What a message says. Raises Rejected, or what the decoder raises."""
    message: RequestApproval | WithdrawApproval = _DECODE(data)
    if deeper_than(data, JSON_DEPTH_MAX + 2):
        raise Rejected("poison", "it is nested too deep")
    if isinstance(message, WithdrawApproval):
        return WithdrawGate(message.reason[:TITLE_CHARS_MAX])
    check_id(message.run_id, "run_id")
    check_id(message.task_id, "task_id")
    if len(data) > ACTION_BYTES_MAX:
        raise Rejected("too_large", "the action is too large to be shown", max=ACTION_BYTES_MAX, requested=len(data))
    if action_digest(message.action) != message.digest:
        raise Rejected("approval_stale", "the digest is not that of the action")
    if len(message.approvers) > APPROVERS_MAX:
        raise Rejected("too_large", "too many approvers", max=APPROVERS_MAX)
    if not fits(message.read_from):
        raise Rejected("too_large", "too much is told of what was read", field="read_from", max=READ_FROM_MAX)
    if not 0 < message.timeout_ms <= APPROVAL_TIMEOUT_MAX_MS:
        raise Rejected("bad_request", "timeout_ms is out of bounds", field="timeout_ms", max=APPROVAL_TIMEOUT_MAX_MS)
    latest_ms = now_ms + APPROVAL_TIMEOUT_MAX_MS
    # One that lay here beyond its end is taken in, so that its run is told that it expired.
    if message.expires_at_ms is not None and not 0 <= message.expires_at_ms <= latest_ms:
        raise Rejected("bad_request", "expires_at_ms is out of bounds", field="expires_at_ms", max=latest_ms)
    # Keys, so that the case of a name does not matter; what is nobody's name stays, and lets nobody in.
    approvers = [key_of(name) or name for name in message.approvers]
    return OpenGate(msgspec.structs.replace(message, approvers=approvers))
