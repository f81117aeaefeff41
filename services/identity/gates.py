"""Gates at the edge: releasing and denying them by the conversation.

In this order: an agent is refused before its code is looked at; the gates must be open, fresh and the ones that were
shown; the name must be one that may answer; only then the code is judged. What it released stands in the account's own
log in the same commit as the code's acceptance, so a crash in between loses nothing (`services.identity.proofs`).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

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
from contracts.taint import listed
from services.identity.accounts import Accounts
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
REASON_CHARS_MAX: Final = 1_000
NOT_AN_APPROVER: Final = "not_an_approver"
"""Bars whoever is not among those that a gate names."""
NOT_ALONE: Final = (
    "the name was said over another connection, or the session spoke of other gates: say them with the code"
)
FORGOTTEN: Final = (
    "so many sessions were spoken in that older ones were pushed out, and a code alone counts for no gate: say the name"
    " again, and the gates, then say them with the code"
)
"""Why gates have to be said with the code."""


class _Heard(NamedTuple):
    """One turn as somebody said it. `gates` are those that were named in it: with a code none need be."""

    purpose: Answer
    text: str
    gates: list[GateRef]
    reason: str
    caller: Caller


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
        heard = _Heard("approval", request.text, [*named, *request.gates], "", caller)
        return await self._turn(request.session, heard)

    async def deny(self, request: ApprovalDeny, caller: Caller) -> Said:
        """One turn of denying gates."""
        named = [GateRef(request.approval_id)] if request.approval_id is not None else []
        reason = request.reason[:REASON_CHARS_MAX]
        return await self._turn(request.session, _Heard("deny", request.text, [*named, *request.gates], reason, caller))

    async def _turn(self, asked: str, heard: _Heard) -> Said:
        session = self._conversations.session(asked)
        checked_text(heard.text)
        talk = await self._conversations.recall(heard.purpose, session)
        if talk.turn is None:
            return await self._take_name(talk, heard)
        await self._conversations.end(talk, heard.gates)
        return await self._take_code(talk, talk.turn, heard)

    async def _take_name(self, talk: Talk, heard: _Heard) -> Said:
        """The first turn: which gates it is about, and who is going to prove being whom."""
        session, text, named = talk.session, heard.text, _checked(heard.gates)
        states = await self._read(named)
        # Of what was typed nothing is kept, only what is in the log: a code that is said a field too early is not.
        found = [GateRef(one.approval_id, one.digest) for one in (state.requested for state in states) if one]
        try:
            requests = self._answerable(named, states)
        except Rejected as error:
            if not text.strip():
                return refused(session, error, heard.gates)
            # The name's turn always ends in "Enter your code."; the answer to the code says what is wrong.
            requests, barred = [], error.code
        else:
            barred = "" if all(_may(one, key_of(text)) for one in requests) else NOT_AN_APPROVER
        if not text.strip():
            return Said(session=session, state="await_name", say=ASK_NAME, gates=_shown(requests, "open"))
        claim = await self._accounts.claim(text)
        asker, unknown = asker_of(heard.caller), len(found) < len(named)
        begun = Turn(claim.actor_id, claim.shadow, found, barred, asker, unknown)
        await self._conversations.begin(talk, begun)
        return Said(session=session, state="await_code", say=ASK_CODE, gates=_shown(requests, "open"))

    async def _take_code(self, talk: Talk, turn: Turn, heard: _Heard) -> Said:
        """The second turn: whether a code may be given here at all, then the code, then what it was given for."""
        session, caller = talk.session, heard.caller
        try:
            if is_agent(caller) or await self._accounts.kind_of(turn.claim) == "agent":
                await self._note(turn, "agent_cannot_approve", caller)
                raise Rejected("agent_cannot_approve")
            if turn.unknown:  # of such a gate no more was kept than this
                raise Rejected(turn.barred)
            _check_same(turn, heard.gates, "" if heard.gates else await self._why_said(talk, caller))
            requests = self._answerable(turn.gates, await self._read(turn.gates))
            if turn.barred == NOT_AN_APPROVER:
                await self._note(turn, turn.barred, caller)
            if turn.barred:
                raise Rejected(turn.barred)
        except Rejected as error:
            return refused(session, error, turn.gates)
        verdict = await self._accounts.judge(
            turn.claim, heard.text, heard.purpose, caller, gates=turn.gates, reason=heard.reason
        )
        if not verdict.accepted:
            return told(session, verdict)
        proof = Proof(heard.purpose, verdict.user_id, "human", verdict.step, verdict.at_ms, turn.gates, heard.reason)
        return await self._carry_out(proof, told(session, verdict), requests)

    async def _why_said(self, talk: Talk, caller: Caller) -> str:
        """Why the gates have to be said with the code; "" when whoever was shown them is alone in the session."""
        if not talk.is_alone_with(caller):
            return NOT_ALONE
        return "" if await self._conversations.forgets_none() else FORGOTTEN

    async def _carry_out(self, proof: Proof, said: Said, requests: Sequence[ApprovalRequested]) -> Said:
        """Answer each gate that was proved for; `said` is the answer to the code, and is completed here."""
        outcomes = await asyncio.gather(*(self._proofs.apply(proof, gate) for gate in proof.gates))
        shown = _shown(requests, "granted" if proof.purpose == "approval" else "denied")
        failed = [error for error in outcomes if error is not None]
        for entry, error in zip(shown, outcomes, strict=True):
            if error is not None:
                entry |= {"status": "refused", "code": error.code}
        if len(failed) == len(proof.gates):
            return refused(said.session, failed[0], proof.gates)
        done = [one for one, error in zip(requests, outcomes, strict=True) if not error]
        # By the task, not by its title: that is words of whoever made the plan.
        names = ", ".join(one.task_id for one in done)
        word = "released" if proof.purpose == "approval" else "denied"
        return msgspec.structs.replace(
            said, say=f"{said.say}. {names} {word}", code=failed[0].code if failed else None, gates=shown
        )

    async def _read(self, gates: Sequence[GateRef]) -> list[Approval]:
        """The gates as the log has them now."""
        return list(await asyncio.gather(*(gate_of(self._host, gate.approval_id) for gate in gates)))

    def _answerable(self, gates: Sequence[GateRef], states: Sequence[Approval]) -> list[ApprovalRequested]:
        """The requests of gates that may be answered now, each the one that was shown. Raises Rejected."""
        now_ms = self._clock.now_ms()
        return [check_answerable(state, gate.digest, now_ms) for state, gate in zip(states, gates, strict=True)]

    async def _note(self, turn: Turn, code: str, caller: Caller) -> None:
        who = "somebody" if turn.shadow else turn.account
        for gate in turn.gates:
            await self._host.ask(gate.approval_id, NoteRefusal(who, code), by=caller.by, corr=caller.corr)


async def gate_of(host: ApprovalHost, approval_id: str) -> Approval:
    """A gate as the log has it now. What can only be a code, said a field too early, is asked of nobody."""
    if approval_id.isdecimal():
        return Approval(approval_id)
    state, _ = await host.read(approval_id)
    return state


def _checked(gates: Sequence[GateRef]) -> list[GateRef]:
    if not gates:
        raise Rejected("bad_request", "name a gate: approval_id, or gates", field="approval_id")
    if len(gates) > GATES_PER_CODE_MAX:
        raise Rejected("too_large", "too many gates for one code", field="gates", max=GATES_PER_CODE_MAX)
    if any(len(gate.digest) > DIGEST_CHARS for gate in gates):
        raise Rejected("too_large", "this is no digest of an action", field="digest", max=DIGEST_CHARS)
    distinct = {check_id(gate.approval_id, "approval_id"): gate for gate in gates}
    return list(distinct.values())


def _check_same(turn: Turn, said: Sequence[GateRef], why_said: str) -> None:
    """Raise approval_stale unless what is said with the code is what was shown with the name.

    It may go unsaid only when there is no reason, `why_said`, to say it.
    """
    if why_said:
        raise Rejected("approval_stale", why_said)
    digests = {gate.approval_id: gate.digest for gate in turn.gates}
    if said and {gate.approval_id for gate in said} != set(digests):
        raise Rejected("approval_stale", "these are not the gates that were shown with the name")
    for gate in said:
        if gate.digest not in ("", digests[gate.approval_id]):
            raise Rejected("approval_stale", approval_id=gate.approval_id)


def _may(request: ApprovalRequested, key: str | None) -> bool:
    return not request.approvers or key in request.approvers


def _read(request: ApprovalRequested) -> dict[str, Any]:
    told, more = listed(request.read_from, request.read_more)
    return {"read_from": msgspec.to_builtins(told), "read_more": more}


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
            **_read(one),
            "status": status,
        }
        for one in requests
    ]
