"""`agent.create|code|challenge`: agents prove themselves to each other, and to nobody else."""

import secrets
from hmac import compare_digest

from contracts.errors import Rejected
from contracts.identity import (
    STEP_S,
    AgentChallenge,
    AgentCode,
    AgentCodeShown,
    AgentCreate,
    AgentCreated,
    AgentVerified,
)
from services.identity import codes
from services.identity.account.decider import CreateUser
from services.identity.account.state import User, step_of
from services.identity.accounts import Accounts
from services.identity.conversation import checked_text
from services.identity.handlers.users import UserHandlers
from services.identity.invitations import digest_of
from services.identity.names import checked_name, key_of
from services.runtime.clock import Clock
from services.runtime.rpc import Caller


class AgentHandlers:
    """An agent's credential says which agent speaks; its code says so to others."""

    def __init__(self, accounts: Accounts, users: UserHandlers, clock: Clock) -> None:
        self._accounts, self._users, self._clock = accounts, users, clock

    async def create(self, request: AgentCreate, caller: Caller) -> AgentCreated:
        """Create an agent with its secret. Its credential is answered once and kept as a digest."""
        await self._users.refuse_agents(caller)
        name, key = checked_name(request.name)
        credential = f"{key}.{secrets.token_urlsafe(32)}"
        command = CreateUser(
            name=name,
            kind="agent",
            secret=self._accounts.sealer.seal(key, "totp", codes.new_secret()),
            credential=digest_of(credential),
        )
        await self._accounts.users.ask(key, command, message_id=caller.message_id, by=caller.by, corr=caller.corr)
        return AgentCreated(user_id=key, name=name, kind="agent", mfa_enabled=True, credential=credential)

    async def code(self, request: AgentCode, _caller: Caller) -> AgentCodeShown:
        """The caller's own code. Whoever names anybody is refused, whomever."""
        if any(one is not None for one in (request.user, request.username, request.name, request.agent)):
            raise Rejected("own_code_only")
        agent = await self._agent(request.credential)
        if agent.secret is None:
            raise Rejected("mfa_not_enabled")
        secret = self._accounts.sealer.open(agent.user_id, "totp", agent.secret)
        now_ms = self._clock.now_ms()
        left_ms = STEP_S * 1000 - now_ms % (STEP_S * 1000)
        return AgentCodeShown(
            agent=agent.name, code=codes.code_at(secret, now_ms), step=step_of(now_ms), seconds_left=left_ms / 1000
        )

    async def challenge(self, request: AgentChallenge, caller: Caller) -> AgentVerified:
        """Verify another agent's code. A human's name is nobody here: no agent can use up a human's attempts."""
        verifier = await self._agent(request.credential)
        claim = await self._accounts.claim(request.agent)
        if await self._accounts.kind_of(claim) != "agent":
            claim = self._accounts.nobody(request.agent)
        verdict = await self._accounts.judge(claim, checked_text(request.code), "challenge", caller)
        verdict.check()
        return AgentVerified(agent=str(verdict.user), kind="agent", verified=True, by=verifier.name)

    async def _agent(self, credential: str) -> User:
        """The agent whose credential this is. Raises bad_credential, the same for every reason."""
        key = key_of(credential.partition(".")[0])
        user = await self._accounts.find(key) if key is not None else None
        stored = user.credential if user is not None and user.kind == "agent" and user.credential else ""
        if user is None or not compare_digest(digest_of(credential).encode(), stored.encode()):
            raise Rejected("bad_credential")
        return user
