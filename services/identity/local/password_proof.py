"""Proving a password, and what limits that: the same for a name that nobody has, in words, in limits and in cost.

Whoever may read the home of the instance says so with a token that stands there. That proves nothing of who they are,
but it has a budget of its own: a stranger on this host who guesses until the password is locked does not keep its
owner from the way back. There nothing locks, only five guesses a minute are judged.
"""

from typing import Final

from contracts.errors import Rejected
from services.identity.account.decider import JudgePassword
from services.identity.account.state import User
from services.identity.accounts import Accounts
from services.identity.passwords import Passwords
from services.runtime.clock import Clock, rfc3339
from services.runtime.ids import Ids

NOBODY: Final = ""
UNPROVEN: Final = "local"
"""Who the log says it was before anything is proven: what somebody calls themselves is no name, and may be a secret."""


class PasswordProof:
    """Judges passwords of accounts, and of those who have none."""

    def __init__(self, accounts: Accounts, passwords: Passwords, clock: Clock, ids: Ids) -> None:
        self._accounts, self._passwords, self._clock, self._ids = accounts, passwords, clock, ids

    async def prove(self, user: User | None, name: str | None, password: str | None, then: str, *, home: bool) -> str:
        """Judge a password and do what it was given for; the account's id. Raises wrong_password or its limits.

        `user` is who `name` names, None when that is nobody.
        """
        self._accounts.sealer.check()
        if user is not None and user.kind == "agent":
            raise Rejected("not_for_agents")
        if not password:
            raise Rejected("wrong_password", "this needs the password")
        known = user is not None and user.password is not None
        claim = self._accounts.nobody(user.user_id if user is not None else name or NOBODY)
        host, actor_id = (self._accounts.users, user.user_id) if user and known else (self._accounts.shadows, claim[0])
        judged, _ = (user, 0) if user is not None and known else await host.read(actor_id)
        phc = None
        if judged.password is not None:
            phc = self._accounts.sealer.open(judged.user_id, "password", judged.password)
        try:
            # The limits are asked before the costly comparison; the log judges again behind it.
            (judged.home_passwords if home else judged.passwords).check(self._clock.now_ms())
            fits = await self._passwords.fits(password, phc, home=home)
            command = JudgePassword(fits, then, home)
            await host.ask(actor_id, command, message_id=self._ids.new(), by=actor_id if fits else UNPROVEN)
        except Rejected as error:
            raise with_until(error) from error
        if not fits:
            raise Rejected("wrong_password")
        return actor_id


def with_until(error: Rejected) -> Rejected:
    """The refusal with its time as people read it."""
    detail = {key: value for key, value in error.detail.items() if key != "until_ms"}
    until_ms = error.detail.get("until_ms")
    if until_ms is not None:
        detail["until"] = rfc3339(until_ms)
    return Rejected(error.code, error.message, **detail)
