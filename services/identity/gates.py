"""Gates at the edge: releasing and denying them by the conversation.

In this order: an agent is refused before its code is looked at; the gates must be open, fresh and the ones that were
shown; the name must be one that may answer; only then the code is judged. What it released stands in the account's own
log in the same commit as the code's acceptance, so a crash in between loses nothing (`services.identity.proofs`).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from contracts.action_text import summary
from contracts.approval import (
    ACTION_LISTED_BYTES_MAX,
    DIGEST_CHARS,
    GATES_PER_CODE_MAX,
    ApprovalConverse,
    ApprovalDeny,
    ApprovalEvent,
    ApprovalRequested,
)
from contracts.errors import Rejected
from contracts.identity import ASK_CODE, ASK_NAME, GateRef, Said
from contracts.subjects import check_id
from services.identity.accounts import Accounts, Verdict
from services.identity.approval.decider import ApprovalCommand, NoteRefusal, check_answerable
from services.identity.approval.state import Approval
from services.identity.conversation import checked_text, is_agent, refused, told
from services.identity.conversations import Conversations, Talk, Turn, asker_of
from services.identity.names import key_of
from services.identity.proofs import Proof, Proofs
from services.runtime.actor import ActorHost
from services.runtime.clock import Clock
from services.runtime.rpc import Caller

ApprovalHost = ActorHost[ApprovalCommand, Approval, ApprovalEvent]
Answer = Literal["approval", "deny"]


class Gates:
    """The verbs `approval.converse` and `approval.deny`."""

    def __init__(
        self, *, host: ApprovalHost, accounts: Accounts, conversations: Conversations, proofs: Proofs, clock: Clock
    ) -> None:
        self._host, self._accounts, self._conversations = host, accounts, conversations
        self._proofs, self._clock = proofs, clock

    async def converse(self, request: ApprovalConverse, caller: Caller) -> Said:
        """One turn of releasing gates."""
        named = [GateRef(request.approval_id, request.digest)] if request.approval_id is not None else []
        return await self._turn("approval", request.session, request.text, [*named, *request.gates], "", caller)

    async def deny(self, request: ApprovalDeny, caller: Caller) -> Said:
        """One turn of denying gates."""
        named = [GateRef(request.approval_id)] if request.approval_id is not None else []
        gates = [*named, *request.gates]
        return await self._turn("deny", request.session, request.text, gates, request.reason, caller)

    async def _turn(
        self, purpose: Answer, session: str, text: str, gates: list[GateRef], reason: str, caller: Caller
    ) -> Said:
        session, text = self._conversations.session(session), checked_text(text)
        talk = await self._conversations.recall(purpose, session)
        if talk.turn is not None:
            await self._conversations.end(talk, gates)
            return await self._answer(purpose, talk, talk.turn, text, gates, reason, caller)
        shown = _checked(gates)
        try:
            requests = await self._open(shown)
        except Rejected as error:
            if not text.strip():
                return refused(session, error, gates)
            # The name's turn always ends in "Enter your code."; the answer to the code says what is wrong.
            requests, barred = [], error.code
        else:
            shown = [GateRef(one.approval_id, one.digest) for one in requests]
            barred = "" if all(_may(one, key_of(text)) for one in requests) else "not_an_approver"
        if not text.strip():
            return Said(session=session, state="await_name", say=ASK_NAME, gates=_shown(requests, "open"))
        claim = await self._accounts.claim(text)
        begun = Turn(claim.actor_id, claim.shadow, shown, barred, asker_of(caller))
        await self._conversations.begin(talk, begun)
        return Said(session=session, state="await_code", say=ASK_CODE, gates=_shown(requests, "open"))

    async def _answer(
        self, purpose: Answer, talk: Talk, turn: Turn, text: str, said: Sequence[GateRef], reason: str, caller: Caller
    ) -> Said:
        session = talk.session
        try:
            if is_agent(caller) or await self._accounts.kind_of(turn.claim) == "agent":
                await self._note(turn, "agent_cannot_approve", caller)
                raise Rejected("agent_cannot_approve")
            _check_same(turn, said, alone=not talk.mixed and turn.asker == asker_of(caller))
            requests = await self._open(turn.gates)
            if turn.barred:
                await self._note(turn, turn.barred, caller)
                raise Rejected(turn.barred)
        except Rejected as error:
            return refused(session, error, turn.gates)
        verdict = await self._accounts.judge(turn.claim, text, purpose, caller, gates=turn.gates, reason=reason[:1_000])
        if not verdict.accepted:
            return told(session, verdict)
        return await self._carry_out(purpose, session, verdict, requests, turn.gates, reason[:1_000])

    async def _carry_out(
        self, purpose: Answer, session: str, verdict: Verdict, requests: Sequence[ApprovalRequested],
        gates: list[GateRef], reason: str,
    ) -> Said:  # fmt: skip
        proof = Proof(purpose, verdict.user_id, "human", verdict.step, verdict.at_ms, gates, reason)
        outcomes = await asyncio.gather(*(self._proofs.apply(proof, gate) for gate in gates))
        shown = _shown(requests, "granted" if purpose == "approval" else "denied")
        failed = [error for error in outcomes if error is not None]
        for entry, error in zip(shown, outcomes, strict=True):
            if error is not None:
                entry |= {"status": "refused", "code": error.code}
        if len(failed) == len(gates):
            return refused(session, failed[0], gates)
        done = [one for one, error in zip(requests, outcomes, strict=True) if not error]
        # By the task, not by its title: that is words of whoever made the plan.
        names = ", ".join(one.task_id for one in done)
        word = "released" if purpose == "approval" else "denied"
        said = told(session, verdict)
        return Said(
            session=session,
            state="confirmed",
            say=f"{said.say}. {names} {word}",
            user=said.user,
            kind=said.kind,
            code=failed[0].code if failed else None,
            gates=shown,
        )

    async def _open(self, gates: Sequence[GateRef]) -> list[ApprovalRequested]:
        """The requests of gates that may be answered now, each the one that was shown. Raises Rejected."""
        now_ms = self._clock.now_ms()
        states = await asyncio.gather(*(self._host.read(gate.approval_id) for gate in gates))
        return [check_answerable(state, gate.digest, now_ms) for (state, _), gate in zip(states, gates, strict=True)]

    async def _note(self, turn: Turn, code: str, caller: Caller) -> None:
        who = "somebody" if turn.shadow else turn.account
        for gate in turn.gates:
            await self._host.ask(gate.approval_id, NoteRefusal(who, code), by=caller.by, corr=caller.corr)


def _checked(gates: Sequence[GateRef]) -> list[GateRef]:
    if not gates:
        raise Rejected("bad_request", "name a gate: approval_id, or gates", field="approval_id")
    if len(gates) > GATES_PER_CODE_MAX:
        raise Rejected("too_large", "too many gates for one code", field="gates", max=GATES_PER_CODE_MAX)
    if any(len(gate.digest) > DIGEST_CHARS for gate in gates):
        raise Rejected("too_large", "this is no digest of an action", field="digest", max=DIGEST_CHARS)
    distinct = {check_id(gate.approval_id, "approval_id"): gate for gate in gates}
    return list(distinct.values())


def _check_same(turn: Turn, said: Sequence[GateRef], *, alone: bool) -> None:
    """What is said with the code must be what was shown with the name.

    It may go unsaid only where nobody else can have begun another conversation: over the same connection, as far as a
    reply subject tells, in a session that never spoke of other gates. Anybody who knows its name may speak in it.
    """
    if not said and not alone:
        text = "the name was said over another connection, or the session spoke of other gates: say them with the code"
        raise Rejected("approval_stale", text)
    digests = {gate.approval_id: gate.digest for gate in turn.gates}
    if said and {gate.approval_id for gate in said} != set(digests):
        raise Rejected("approval_stale", "these are not the gates that were shown with the name")
    for gate in said:
        if gate.digest not in ("", digests[gate.approval_id]):
            raise Rejected("approval_stale", approval_id=gate.approval_id)


def _may(request: ApprovalRequested, key: str | None) -> bool:
    return not request.approvers or key in request.approvers


def _shown(requests: Sequence[ApprovalRequested], status: str) -> list[dict[str, Any]]:
    return [
        {
            "approval_id": one.approval_id,
            "run_id": one.run_id,
            "task_id": one.task_id,
            "title": one.title,
            "digest": one.digest,
            "action": one.action if len(msgspec.json.encode(one.action)) <= ACTION_LISTED_BYTES_MAX else None,
            "summary": summary(one.action),
            "expires_at_ms": one.expires_at_ms,
            "status": status,
        }
        for one in requests
    ]
