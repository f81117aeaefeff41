"""New human accounts: a one-time link, written into a private file of this host, brings one to life."""

import secrets
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from services.identity.account.decider import CreateUser, InviteUser
from services.identity.account.state import User
from services.identity.accounts import Accounts
from services.identity.names import checked_name, key_of
from services.identity.own_files import write_private
from services.runtime.clock import Clock, rfc3339
from services.runtime.rpc import Caller

FOLDER: Final = "set-up-links"
PAGE: Final = "/auth/setup/"


def digest_of(token: str) -> str:
    """What is stored of a random token of 256 bits: nothing that leads back to it."""
    return sha256(token.encode()).hexdigest()


class Invitations:
    """Creates humans and writes their links, each good for a while that it says itself."""

    def __init__(self, accounts: Accounts, keys: Path, clock: Clock, lasts_s: float) -> None:
        self._accounts, self._folder, self._clock = accounts, keys / FOLDER, clock
        self.lasts_ms = int(lasts_s * 1000)
        self._unknown: dict[str, str | None] = {}
        self.base_url = ""

    async def create(self, name: str, caller: Caller) -> User:
        """Create an account and write its link. Raises bad_name or duplicate_id."""
        name, key = checked_name(name)
        token = secrets.token_urlsafe(32)
        command = CreateUser(name=name, kind="human", invitation=digest_of(token))
        outcome = await self._accounts.users.ask(
            key, command, message_id=caller.message_id, by=caller.by, corr=caller.corr
        )
        self._write(key, token, outcome.state.invited_at_ms)
        return outcome.state

    async def renew(self, key: str, caller: Caller, instead: str | None = None) -> None:
        """A new link for an account that has no password yet: the old one may be lost, or have run out."""
        token = secrets.token_urlsafe(32)
        invite = InviteUser(digest_of(token), instead)
        outcome = await self._accounts.users.ask(key, invite, by=caller.by, corr=caller.corr)
        if outcome.state.invitation == invite.invitation:  # else another replica was first, and writes its own
            self._write(key, token, outcome.state.invited_at_ms)

    async def renew_old(self, caller: Caller) -> None:
        """New links in the place of those that have run out, or that no account knows."""
        for path in self._links():
            await self.renew_if_old(path.name, caller)
            await self._renew_if_unknown(path.name, caller)

    async def renew_if_old(self, name: str, caller: Caller) -> None:
        """A new link in the place of one account's, if that has run out."""
        user = await self._accounts.find(name)
        if user is None or user.password is not None:
            return
        if self._clock.now_ms() >= user.invited_at_ms + self.lasts_ms:
            await self.renew(user.user_id, caller, user.invitation)

    async def _renew_if_unknown(self, name: str, caller: Caller) -> None:
        """Of two replicas that invite at one moment, the slower may write last what the account knows no more.

        It is seen twice before it counts: between a commit and its file there is a moment, too.
        """
        user = await self._accounts.find(name)
        if user is None or user.password is not None or digest_of(self._token(name)) == user.invitation:
            self._unknown.pop(name, None)
        elif self._unknown.get(name) == user.invitation:
            await self.renew(user.user_id, caller, user.invitation)
        else:
            self._unknown[name] = user.invitation

    def retarget(self, base_url: str, living: Collection[str] = ()) -> None:
        """Links that are not used yet lead to this listener, but for those to another one that is `living`."""
        self.base_url = base_url
        for path in self._links():
            try:
                text = path.read_text(encoding="ascii").strip()
            except FileNotFoundError:
                continue  # it was used just now
            there, path_of_page, rest = text.partition(PAGE)
            if path_of_page and there != base_url and there not in living:
                self._put(path.name, rest)

    def used(self, key: str) -> None:
        """The link is used up."""
        self.path(key).unlink(missing_ok=True)

    def path(self, key: str) -> Path:
        """Where the link of an account stands."""
        return self._folder / key

    def _token(self, key: str) -> str:
        try:
            return self.path(key).read_text(encoding="ascii").strip().rpartition("#")[2]
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def _links(self) -> list[Path]:
        """The files of accounts; what another process is just writing there has a name that is no account's."""
        return [path for path in self._folder.glob("*") if key_of(path.name) == path.name]

    def _write(self, key: str, token: str, invited_at_ms: int) -> None:
        self._put(key, f"?user={key}&until={rfc3339(invited_at_ms + self.lasts_ms)}#{token}")

    def _put(self, key: str, rest: str) -> None:
        try:
            write_private(self.path(key), f"{self.base_url}{PAGE}{rest}\n")
        except Rejected as error:
            raise Rejected("bad_config", f"the set-up link of {key} cannot be written", **error.detail) from error
