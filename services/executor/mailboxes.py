"""Durable input of run actors: mailbox messages and fired timers, from the broker to the host, settled when safe.

A message is acknowledged when its run is at rest. Until then it is kept alive, so that nobody else gets it; what
cannot be read, or breaks its actor again and again, becomes a dead letter. Nothing is dropped.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from contracts.approval import TakeApproval
from contracts.codec import UnknownType
from contracts.commit import HEADER_BY, HEADER_CORRELATION, HEADER_REPLY
from contracts.errors import Rejected
from contracts.limits import JSON_DEPTH_MAX
from contracts.reply import ok, refused
from contracts.run import AddTasks, CancelRun, ResumeRun, RunCommand, RunEvent, StartRun, TakeAnswer
from contracts.streams import COMMANDS, POISON_DELIVERIES_MAX
from contracts.subjects import check_id, command, parse_mailbox
from services.executor.run.state import Run
from services.executor.views import summary_of
from services.runtime import telemetry
from services.runtime.actor import ActorHost
from services.runtime.bus import Bus
from services.runtime.dead_letters import DeadLetters
from services.runtime.genuine import HEADER_STREAM
from services.runtime.intake import deeper_than
from services.runtime.lifecycle import Log
from services.runtime.mailbox import Answered, Interrupted, Outcome
from services.runtime.metrics import Metrics
from services.runtime.publisher import Stored
from services.runtime.pull import Delivery
from services.runtime.surroundings import WAITED_OUT

KEEP_ALIVE_S: Final = 1.5
"""Well below the consumers' ack_wait of 5 s: only a dead or frozen executor lets a message go to another."""
NAK_DELAY_S: Final = 1.0
NEWER_DELAY_S: Final = 15.0
TIME: Final = "time"
"""Verb of the mailbox message that says only that time has passed."""
FORGED: Final = "approval_not_genuine"
APPROVAL: Final = "approval"
"""Verb by which identity alone may speak: the answer of a gate is believed under no other."""
Said = StartRun | AddTasks | CancelRun | ResumeRun | TakeAnswer | TakeApproval
"""What others may say to a run. Results and time come from the executor itself."""
DEPTH_MAX: Final = JSON_DEPTH_MAX + 2
"""A request may nest JSON_DEPTH_MAX levels; what it asks for may lie a little deeper in a command."""
CLOSED: Final = ("htdag.", "llm.", "ai.", "$")
"""Where answers do not go: nobody's message may make the executor speak to the system's own subjects."""
_PLAIN: Final = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*\Z")
_DECODE: Final = msgspec.json.Decoder(Said).decode
Host = ActorHost[RunCommand, Run, RunEvent]


class Mailboxes:
    """Hands deliveries to the host and settles them. `spawn` owns the few tasks that are needed."""

    def __init__(
        self,
        bus: Bus,
        host: Host,
        metrics: Metrics,
        log: Log,
        spawn: Callable[[Coroutine[Any, Any, Any], str], Any],
        time_command: Callable[[], RunCommand],
        check_answer: Callable[[TakeApproval], Coroutine[Any, Any, None]],
    ) -> None:
        self._bus, self._host, self._log, self._spawn = bus, host, log, spawn
        self._time_command, self._check_answer = time_command, check_answer
        self._dead_letters = DeadLetters(bus, metrics, log, NAK_DELAY_S)
        self._unsettled: set[Delivery] = set()

    async def keep_alive(self) -> None:
        """Tell the broker, until cancelled, that unsettled messages are still worked on."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            for delivery in self._unsettled:
                delivery.in_progress()

    def take_command(self, delivery: Delivery) -> None:
        """Take one mailbox message in."""
        try:
            subject = parse_mailbox(delivery.subject)
            run_id = check_id(subject.aggregate_id, "run_id")
            wish = self._time_command() if subject.verb == TIME else _wish(delivery, subject.verb, run_id)
        except Rejected as error:
            self._put_aside(delivery, error.code, error.message)
            return
        except (msgspec.MsgspecError, RecursionError) as error:
            self._put_aside(delivery, "poison", str(error))
            return
        if isinstance(wish, TakeApproval):
            self._spawn(self._take_answer(delivery, run_id, wish), "gate-answer")
        else:
            self._hand_over(delivery, run_id, wish)

    async def _take_answer(self, delivery: Delivery, run_id: str, answer: TakeApproval) -> None:
        """Take the answer of a gate in, once its signature is proven; a release that has none releases nothing."""
        self._unsettled.add(delivery)
        try:
            await self._check_answer(answer)
        except Rejected as error:
            self._unsettled.discard(delivery)
            self._log.error("answer_refused", run_id=run_id, approval_id=answer.approval_id, code=error.code)
            if error.code == FORGED:
                self._put_aside(delivery, error.code, error.message)
            else:  # nobody says by which key identity signs: it comes again until somebody does
                delivery.nak(NAK_DELAY_S)
        else:
            self._hand_over(delivery, run_id, answer)

    def _hand_over(self, delivery: Delivery, run_id: str, wish: RunCommand) -> None:
        headers = delivery.headers
        reply = self._reply_in(delivery)
        refused: list[Rejected] = []
        self._unsettled.add(delivery)
        self._host.deliver(
            run_id,
            wish,
            message_id=headers.get("Nats-Msg-Id") or f"mailbox-{delivery.seq}",
            by=headers.get(HEADER_BY, ""),
            corr=headers.get(HEADER_CORRELATION, ""),
            trace=telemetry.extract(headers),
            settled=lambda error: self._settle(delivery, error, refused),
            answered=self._answering(reply) if reply else _remembering(refused) if _plans(wish) else None,
        )

    def take_timer(self, delivery: Delivery) -> None:
        """Pass a fired timer on to the mailbox of its run: any executor may get it, only one should hold the run."""
        try:
            run_id = check_id(delivery.subject.rpartition(".")[2], "run_id")
        except Rejected as error:
            self._put_aside(delivery, error.code, error.message)
            return
        stored = self._bus.store(
            command("executor", "run", run_id, TIME), b"", stream=COMMANDS, msg_id=f"timer:{run_id}:{delivery.seq}"
        )

        def passed_on(outcome: "asyncio.Future[Stored]") -> None:
            if outcome.cancelled() or outcome.exception() is not None:
                delivery.nak(NAK_DELAY_S)
            else:
                delivery.ack()

        stored.add_done_callback(passed_on)

    def _reply_in(self, delivery: Delivery) -> str:
        """The subject that waits for an answer, if it is one that may get it."""
        reply = delivery.headers.get(HEADER_REPLY, "")
        if reply and (reply.startswith(CLOSED) or not _PLAIN.match(reply)):
            self._log.warning("reply_subject_closed", subject=delivery.subject, reply=reply[:200])
            return ""
        return reply

    def _answering(self, reply: str) -> Answered[Run, RunEvent]:
        def answered(outcome: Outcome[Run, RunEvent] | Rejected) -> None:
            try:
                if isinstance(outcome, Rejected):
                    answer = refused(outcome)
                else:
                    answer = ok(summary_of(outcome.state))
                self._bus.publish(reply, answer)
            except Rejected as error:  # the caller's own deadline tells it; the commit stands
                self._log.warning("answer_not_sent", code=error.code)

        return answered

    def _settle(self, delivery: Delivery, error: BaseException | None, refused: Sequence[Rejected] = ()) -> None:
        self._unsettled.discard(delivery)
        if error is None and refused:
            self._put_aside(delivery, refused[0].code, refused[0].message)
        elif error is None:
            delivery.ack()
        elif isinstance(error, Interrupted):
            delivery.nak()
        elif isinstance(error, Rejected) and error.code in WAITED_OUT:
            delivery.nak(NAK_DELAY_S)
        elif isinstance(error, UnknownType):
            # A newer version wrote the log: the message is innocent, and waits for an executor that can read it.
            delivery.nak(NEWER_DELAY_S)
        elif delivery.delivered >= POISON_DELIVERIES_MAX:
            code = error.code if isinstance(error, Rejected) else "poison"
            self._put_aside(delivery, code, str(error))
        else:
            delivery.nak(NAK_DELAY_S)

    def _put_aside(self, delivery: Delivery, code: str, detail: str) -> None:
        self._spawn(self._dead_letters.put_aside(delivery, code, detail), "dead-letter")


def _wish(delivery: Delivery, verb: str, run_id: str) -> Said:
    """What a message says. Raises Rejected poison or bad_id, or what the decoder raises."""
    data = delivery.data
    wish: Said = _DECODE(data)
    if isinstance(wish, TakeApproval):
        _check_mailbox(delivery, verb)
    if deeper_than(data, DEPTH_MAX):
        raise Rejected("poison", "it is nested too deep")
    if isinstance(wish, StartRun | AddTasks | TakeApproval) and wish.run_id != run_id:
        raise Rejected("bad_id", "the subject and the message name different runs", field="run_id")
    return wish


def _check_mailbox(delivery: Delivery, verb: str) -> None:
    """Refuse an answer of a gate that somebody else may have put here, or had the broker put here (see genuine.py)."""
    if verb != APPROVAL or delivery.headers.get(HEADER_STREAM) != COMMANDS:
        raise Rejected("poison", "this is not how identity answers")


def _plans(wish: RunCommand) -> bool:
    """Whether somebody's work is lost, unseen, when this is refused and nobody waits for an answer."""
    return isinstance(wish, StartRun | AddTasks)


def _remembering(refused: list[Rejected]) -> Answered[Run, RunEvent]:
    def answered(outcome: Outcome[Run, RunEvent] | Rejected) -> None:
        if isinstance(outcome, Rejected):
            refused.append(outcome)

    return answered
