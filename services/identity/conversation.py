"""Two turns: "Who are you?" -> a name -> always "Enter your code." -> one text for every failure, a code beside it."""

import asyncio
from collections.abc import Sequence
from typing import Final

from contracts.errors import CATALOGUE, Rejected
from contracts.identity import ASK_CODE, ASK_NAME, REFUSAL, Converse, GateRef, Said
from services.identity.accounts import Accounts, Claim, Verdict
from services.identity.conversations import Conversations, Turn
from services.runtime.clock import rfc3339
from services.runtime.rpc import Caller

LOGIN: Final = "login"
TEXT_CHARS_MAX: Final = 1_024
AGENT_PRINCIPAL: Final = "agent:"
"""Begins the principal of a channel that belongs to an agent."""


class Login:
    """The conversation whose only purpose is to know who speaks."""

    def __init__(self, accounts: Accounts, conversations: Conversations) -> None:
        self._accounts, self._conversations = accounts, conversations

    async def converse(self, request: Converse, caller: Caller) -> Said:
        """One turn."""
        session = self._conversations.session(request.session)
        text = checked_text(request.text)
        talk = await self._conversations.recall(LOGIN, session)
        if talk.turn is not None:
            _, verdict = await asyncio.gather(self._conversations.end(talk), self._judge(talk.turn.claim, text, caller))
            return told(session, verdict)
        if not text.strip():
            return Said(session=session, state="await_name", say=ASK_NAME)
        claim = await self._accounts.claim(text)
        await self._conversations.begin(talk, Turn(claim.actor_id, claim.shadow))
        return Said(session=session, state="await_code", say=ASK_CODE)

    async def _judge(self, claim: Claim, text: str, caller: Caller) -> Verdict:
        if is_agent(caller) and await self._accounts.kind_of(claim) == "human":
            # No agent can use up or lock a human's attempts: to it, humans are nobody.
            claim = self._accounts.nobody(claim.actor_id)
        return await self._accounts.judge(claim, text, LOGIN, caller)


def is_agent(caller: Caller) -> bool:
    """Whether the channel says that an agent speaks."""
    return caller.by.startswith(AGENT_PRINCIPAL)


def checked_text(text: str) -> str:
    """What was typed, if it is of a length that people type. Raises too_large, and repeats nothing of it."""
    if len(text) > TEXT_CHARS_MAX:
        raise Rejected("too_large", "the text is too long", field="text", max=TEXT_CHARS_MAX, requested=len(text))
    return text


def told(session: str, verdict: Verdict) -> Said:
    """The answer to a code."""
    if verdict.accepted:
        return Said(
            session=session,
            state="confirmed",
            say=f"confirmed, this is {verdict.user}",
            user=verdict.user,
            kind=verdict.kind,
        )
    return Said(
        session=session,
        state="refused",
        say=REFUSAL,
        code=verdict.code,
        retry_after=verdict.retry_after,
        until=None if verdict.until_ms is None else rfc3339(verdict.until_ms),
    )


def refused(session: str, error: Rejected, gates: Sequence[GateRef] = ()) -> Said:
    """The answer when a gate, not a proof, is what stands in the way; `say` may then help."""
    shown = [{"approval_id": gate.approval_id, "digest": gate.digest} for gate in gates]
    say = REFUSAL if CATALOGUE[error.code].error_class == "identity" else error.message
    return Said(session=session, state="refused", say=say, code=error.code, gates=shown)
