"""The life of a call: claimed (of a task), judged, stored, carried out, answered.

Before any effect its decision is stored; if that is not sure, nothing runs. A call of a task is claimed before it is
decided, by exactly one gateway; whoever asks again joins it, or gets its recorded answer. It has no more time than its
task has, and is cut when that is over.
"""

import asyncio
import functools
import traceback
from typing import Final

from contracts.errors import Rejected
from contracts.policy import CallFinished, SecurityRaised, ToolDecided
from services.policy_gateway.audit.denials import Denials
from services.policy_gateway.audit.fingerprint import Fingerprint
from services.policy_gateway.audit.log import AuditLog
from services.policy_gateway.audit.redaction import Kept, keep, told
from services.policy_gateway.calls.answers import Answer, denied, failed, fitting
from services.policy_gateway.calls.call import Call
from services.policy_gateway.calls.entries import decided_entry, finished_entry
from services.policy_gateway.calls.flights import Flight, Flights
from services.policy_gateway.calls.judging import Judge, Judgement, of_a_stranger
from services.policy_gateway.calls.records import CallRecords
from services.policy_gateway.calls.repeats import Repeats, same_call
from services.policy_gateway.calls.unjudged import Unjudged
from services.policy_gateway.decision.verdict import Allow, Deny
from services.policy_gateway.toolkit import Toolkit
from services.policy_gateway.tools.tool import Ticket
from services.runtime import faults
from services.runtime.clock import Clock
from services.runtime.event_store import Conflict
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics
from services.runtime.withdrawal import unless_withdrawn

CUT_S: Final = 10.0
CUT_MESSAGE: Final = "the gateway was stopped during this call: it may have happened"


class Calls:
    """Handles calls, each in the task of its caller; the effect has a task of its own."""

    def __init__(
        self, *, judge: Judge, toolkit: Toolkit, audit: AuditLog, records: CallRecords, repeats: Repeats,
        flights: Flights, denials: Denials, unjudged: Unjudged,
        clock: Clock, metrics: Metrics, log: Log, gateway: str, sandbox: str,
        value_bytes_max: int, fingerprint: Fingerprint,
    ) -> None:  # fmt: skip
        self._judge, self._toolkit, self._audit = judge, toolkit, audit
        self._records, self._repeats, self._flights, self._denials = records, repeats, flights, denials
        self._unjudged, self._clock, self._metrics, self._log = unjudged, clock, metrics, log
        self._gateway, self._sandbox, self._value_bytes_max = gateway, sandbox, value_bytes_max
        self._fingerprint = fingerprint
        self._effects: set[asyncio.Task[Answer]] = set()

    async def handle(self, call: Call) -> Answer | None:
        """The answer to a call; None for an old request of one that was asked again: nobody listens there any more.

        It never raises but when it is cancelled; then the call goes on.
        """
        flight = self._flights.get(call.id)
        if flight is None:
            flight = self._flights.begin(call)
            effect = asyncio.get_running_loop().create_task(self._live(flight), name=f"call-{call.id}")
            self._effects.add(effect)
            effect.add_done_callback(functools.partial(self._lived, flight))
        elif not same_call(call, flight.call):
            conflict = Rejected("conflict", "this call of the task was another one", call=call.id)
            await self._unjudged.call(call, conflict)
            return failed(conflict)
        return await self._flights.join(flight)

    def _lived(self, flight: Flight, effect: "asyncio.Task[Answer]") -> None:
        self._effects.discard(effect)
        # One that was cut before it began has no answer of its own.
        cut = effect.cancelled()
        if cut:
            self._unjudged.count("call_interrupted")
        self._flights.end(flight, failed(Rejected("call_interrupted", CUT_MESSAGE)) if cut else effect.result())

    @property
    def under_way(self) -> int:
        """Calls that have no answer yet."""
        return len(self._effects)

    async def drain(self, within_s: float) -> None:
        """Let calls end; cut those that do not, so that their end is recorded too."""
        if self._effects:
            await asyncio.wait(self._effects, timeout=within_s)
        for effect in self._effects:
            effect.cancel()
        if self._effects:
            # What does not even end now is stuck in the kernel or an engine; the next start records its end.
            await asyncio.wait(self._effects, timeout=CUT_S)

    # -- one call --------------------------------------------------------------------------------------------------

    async def _live(self, flight: Flight) -> Answer:
        call = flight.call
        kept = keep(call.asked.args, call.asked.opts, self._fingerprint)
        try:
            return await (self._once(flight, kept) if call.of is not None else self._any(flight, kept))
        except Rejected as error:
            return failed(error)
        except asyncio.CancelledError:
            # Cut by the drain: whoever waits is told so, and the records were closed where the effect was cut.
            return failed(Rejected("call_interrupted", CUT_MESSAGE))
        except Exception as error:  # the edge of a call: what breaks here is ours, not the caller's
            self._broke("call_failed", call, kept, error)
            return failed(Rejected("internal", call=call.id))

    def _broke(self, what: str, call: Call, kept: Kept, error: Exception) -> None:
        """Log a mistake of ours. Its traceback may name any word of the call, so the known secrets are taken out."""
        trace = kept.masking.anywhere("".join(traceback.format_exception(error)))
        self._log.error(what, call=call.id, role=call.role, tool=call.tool, exception=trace)

    async def _any(self, flight: Flight, kept: Kept) -> Answer:
        """A call that belongs to no task: it is a new one each time it is sent."""
        call = flight.call
        judgement = await self._judged(call)
        entry = self._decided(call, kept, judgement)
        if isinstance(judgement.verdict, Deny):
            return await self._refuse(entry, judgement, judgement.verdict)
        await self._audit.append(entry)
        faults.point("policy_gateway.after_decided")
        answer, took_ms = await self._carry_out(flight, kept, judgement, judgement.verdict)
        await self._ended(entry, answer, took_ms)
        return answer

    async def _once(self, flight: Flight, kept: Kept) -> Answer:
        """A call of a task: at most once, whoever asks, wherever."""
        call = flight.call
        judgement = await self._judged(call)
        entry = self._decided(call, kept, judgement)
        if isinstance(judgement.verdict, Deny) and of_a_stranger(judgement.verdict):
            # Whoever speaks in another role than the task's is not the task: its calls are not his to use up.
            return await self._refuse(entry, judgement, judgement.verdict)
        try:
            claim_seq = await self._records.claim(entry, self._audit.head.seq)
        except Conflict:
            return await self._repeated(call, entry)
        faults.point("policy_gateway.after_claim")
        verdict, took_ms = judgement.verdict, 0.0
        try:
            if isinstance(verdict, Deny):
                answer = await self._refuse(entry, judgement, verdict)
            else:
                await self._audit.append(entry)
                faults.point("policy_gateway.after_decided")
                answer, took_ms = await self._carry_out(flight, kept, judgement, verdict)
        except Rejected as error:
            # Nothing was done, because it could not be stored; the same call again would find the same claim.
            answer = failed(error)
            await self._record(call.id, answer, took_ms, claim_seq)
            return answer
        faults.point("policy_gateway.after_effect")
        answer = await self._record(call.id, answer, took_ms, claim_seq)
        faults.point("policy_gateway.after_record")
        if isinstance(verdict, Allow):
            await self._ended(entry, answer, took_ms)
        return answer

    async def _judged(self, call: Call) -> Judgement:
        """The verdict; what cannot be judged leaves its entry here."""
        try:
            return await self._judge.judge(call)
        except Rejected as error:
            await self._unjudged.call(call, error)
            raise
        except asyncio.CancelledError:
            self._unjudged.count("call_interrupted")
            raise
        except Exception:
            await self._unjudged.call(call, Rejected("internal"))
            raise

    async def _repeated(self, call: Call, entry: ToolDecided) -> Answer:
        """What was asked before has its entry; another call under its name has one of its own."""
        try:
            return await self._repeats.answer(call, entry)
        except Rejected as error:
            if error.code == "conflict":
                await self._unjudged.call(call, error)
            raise

    def _decided(self, call: Call, kept: Kept, judgement: Judgement) -> ToolDecided:
        return decided_entry(
            call, kept, judgement, gateway=self._gateway, sandbox=self._sandbox, now_ms=self._clock.now_ms()
        )

    async def _refuse(self, entry: ToolDecided, judgement: Judgement, verdict: Deny) -> Answer:
        self._denials.tell(entry, code=verdict.code, rule=verdict.rule, attack=entry.attack, detail=entry.detail)
        await self._audit.append(entry, *self._raised(entry, verdict.code))
        # The role is the caller's own word: only one that exists becomes a label.
        role = entry.role if entry.role in judgement.version.roles.rights else "unknown"
        self._metrics.inc("htdag_policy_denials_total", role=role, attack=entry.attack)
        # The answer is recorded too: what the audit must not hold is not told either.
        return denied(verdict._replace(detail=entry.detail))

    def _raised(self, entry: ToolDecided, code: str) -> list[SecurityRaised]:
        raised = self._denials.raised(entry, code)
        for event in raised:
            self._metrics.inc("htdag_security_raised_total", kind=event.kind)
        return raised

    async def _carry_out(self, flight: Flight, kept: Kept, judgement: Judgement, allow: Allow) -> tuple[Answer, float]:
        began_s, call = self._clock.monotonic_s(), flight.call
        try:
            if judgement.missing is not None or judgement.workspace is None:
                raise judgement.missing or Rejected("workspace_not_found")
            await self._judge.check_place(call, judgement)
            deadline_s = self._deadline_s(call, judgement, allow)
            ticket = Ticket(call.id, call.role, judgement.workspace, deadline_s)
            timeout_ms = max(0, round((deadline_s - call.arrived_s) * 1000))
            value = await unless_withdrawn(self._toolkit.run(allow.plan, ticket, timeout_ms), flight.withdrawn)
            answer = fitting(value, self._value_bytes_max)
        except Rejected as error:
            answer = Answer(error=told(error.to_wire(), kept.masking))
        except asyncio.CancelledError:
            # The drain cut it. What it had started was ended by the tool; its end is recorded like any other.
            _go_on()
            answer = failed(Rejected("call_interrupted", CUT_MESSAGE))
        except Exception as error:  # a tool that breaks is our mistake; its call has an end all the same
            self._broke("tool_failed", call, kept, error)
            answer = failed(Rejected("internal", call=call.id))
        took_s = self._clock.monotonic_s() - began_s
        self._metrics.observe("htdag_tool_call_seconds", took_s, tool=call.tool)
        return answer, round(took_s * 1000, 3)

    def _deadline_s(self, call: Call, judgement: Judgement, allow: Allow) -> float:
        """Until when it may take, by the event loop's clock: as long as it asked for, but no longer than its task."""
        own_s = call.arrived_s + allow.timeout_ms / 1000
        if judgement.bound is None:
            return own_s
        left_ms = judgement.bound.deadline_at_ms - self._clock.now_ms()
        return min(own_s, asyncio.get_running_loop().time() + left_ms / 1000)

    async def _record(self, call_id: str, answer: Answer, took_ms: float, claim_seq: int) -> Answer:
        """Store the answer; when another gateway took this one for dead, its word stands."""
        finished = CallFinished(self._gateway, took_ms, answer.value, answer.error, answer.cut)
        try:
            await self._records.finish(call_id, finished, claim_seq)
        except Conflict:
            recorded = await self._repeats.recorded(call_id)
            if recorded is not None:
                self._log.warning("answer_dropped", call=call_id, reason="another gateway has closed this call")
                return recorded
        return answer

    async def _ended(self, entry: ToolDecided, answer: Answer, took_ms: float) -> None:
        end = finished_entry(entry, answer, took_ms, self._gateway, self._clock.now_ms())
        raised = list[SecurityRaised]()
        if end.attack:
            rule = str((answer.error or {}).get("rule", f"{entry.tool}.run"))
            self._denials.tell(entry, code=end.code, rule=rule, attack=end.attack, detail={})
            self._metrics.inc("htdag_policy_denials_total", role=entry.role, attack=end.attack)
            raised = self._raised(entry, end.code)
        try:
            await self._audit.append(end, *raised)
        except Rejected as error:
            # It has happened and cannot be unsaid; the audit has its decision, and gets its end at the next start.
            self._log.error("end_not_stored", call=entry.id, code=error.code, reason=error.message)


def _go_on() -> None:
    """Take a cancellation as done, so that what follows may wait again."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
