"""`user.create|status|list`."""

import msgspec

from contracts.errors import Rejected
from contracts.identity import UserCreate, UserRef, UserView
from contracts.requests import Nothing
from services.identity.account.state import User
from services.identity.accounts import Accounts
from services.identity.conversation import is_agent
from services.identity.invitations import Invitations
from services.runtime.clock import Clock, rfc3339
from services.runtime.rpc import Caller


class UserHandlers:
    """Creates accounts of humans and shows accounts."""

    def __init__(self, accounts: Accounts, invitations: Invitations, clock: Clock) -> None:
        self._accounts, self._invitations, self._clock = accounts, invitations, clock

    async def create(self, request: UserCreate, caller: Caller) -> UserView:
        """Create a human account; only who can read the home's keys can bring it to life."""
        if request.kind != "human":
            raise Rejected("bad_request", "agents are made by agent.create", field="kind")
        await self.refuse_agents(caller)
        return self._view(await self._invitations.create(request.name, caller))

    async def status(self, request: UserRef, _caller: Caller) -> UserView:
        """One account. Raises user_not_found."""
        return self._view(await self._accounts.get(request.name))

    async def page(self, _request: Nothing, _caller: Caller) -> list[UserView]:
        """All accounts, by name."""
        return [
            self._shown(
                UserView(
                    user_id=one.user_id,
                    name=one.name,
                    kind=one.kind,
                    mfa_enabled=one.mfa,
                    password_set=one.password,
                    failures=one.failures,
                    created_at=rfc3339(one.at_ms),
                ),
                one.until_ms,
                one.for_good,
            )
            for one in await self._accounts.directory.entries()
        ]

    async def refuse_agents(self, caller: Caller) -> None:
        """Agents make nobody, themselves included. Raises not_for_agents."""
        user = await self._accounts.find(caller.by.rpartition(":")[2])
        if is_agent(caller) or (user is not None and user.kind == "agent"):
            raise Rejected("not_for_agents")

    def _view(self, user: User) -> UserView:
        if user.kind is None:
            raise Rejected("user_not_found")
        shown = UserView(
            user_id=user.user_id,
            name=user.name,
            kind=user.kind,
            mfa_enabled=user.mfa_enabled,
            password_set=user.password is not None,
            failures=user.codes.failures,
            created_at=rfc3339(user.created_at_ms),
        )
        return self._shown(shown, user.codes.locked_until_ms, user.codes.for_good)

    def _shown(self, view: UserView, until_ms: int, for_good: bool) -> UserView:
        locked = until_ms > self._clock.now_ms()
        return msgspec.structs.replace(
            view,
            locked=locked or for_good,
            locked_until=rfc3339(until_ms) if locked else None,
            needs_unlock=for_good,
            failures=view.failures if locked or for_good or not until_ms else 0,
        )
