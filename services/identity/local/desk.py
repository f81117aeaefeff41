"""What can be done on this host only, without HTTP: each method is one route."""

from collections import OrderedDict
from hmac import compare_digest
from typing import Any, Final

from contracts.errors import Rejected
from services.identity import codes
from services.identity.account.decider import SetPassword
from services.identity.account.state import User
from services.identity.accounts import Accounts
from services.identity.conversation import checked_text
from services.identity.invitations import Invitations, digest_of
from services.identity.key_check import on_old_keys
from services.identity.local.password_proof import UNPROVEN, PasswordProof
from services.identity.local.sessions import Sessions
from services.identity.names import key_of
from services.identity.passwords import Passwords
from services.runtime.clock import Clock
from services.runtime.ids import Ids
from services.runtime.rpc import Caller

SET_UPS_MAX: Final = 100
SET_UP_S: Final = 600.0


class Desk:
    """Set-up, verification, disabling, reset, unlock. `signed_in` is the account of the caller's session, or None."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        invitations: Invitations,
        sessions: Sessions,
        passwords: Passwords,
        clock: Clock,
        ids: Ids,
        issuer: str,
    ) -> None:
        self._accounts, self._invitations, self._sessions = accounts, invitations, sessions
        self._clock, self._ids, self._issuer = clock, ids, issuer
        self._passwords = passwords
        self._proof = PasswordProof(accounts, self._passwords, clock, ids)
        # A secret that no code has confirmed is kept nowhere else, and not for long.
        self._set_ups: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def set_password(self, name: str, token: str, password: str) -> dict[str, Any]:
        """Bring an account to life with its one-time link, and sign in."""
        user, given = await self._accounts.find(name), digest_of(token)
        stored = user.invitation or "" if user is not None else ""
        if user is None or not compare_digest(given.encode(), stored.encode()):
            raise Rejected("bad_link")
        user_id = user.user_id
        sealed = self._accounts.sealer.seal(user_id, "password", await self._passwords.hashed(password))
        command = SetPassword(sealed, given, self._invitations.lasts_ms)
        try:
            await self._accounts.users.ask(user_id, command, message_id=self._ids.new(), by=user_id)
        except Rejected as error:
            if error.code == "bad_link":  # who had the right one finds another in its place at once
                await self._invitations.renew_if_old(user_id, self._caller(user_id))
            raise
        self._invitations.used(user_id)
        return self._signed_in(user_id)

    async def change_password(
        self, signed_in: str | None, name: str | None, old: str | None, new: str | None, code: str | None, *, home: bool
    ) -> dict[str, Any]:
        """A new password, with the old one and a code; who was signed in by the old one is so no more."""
        user = await self._meant(signed_in, name)
        user_id = await self._proof.prove(user, name, old, "change", home=home)
        sealed = self._accounts.sealer.seal(user_id, "password", await self._passwords.hashed(new or "", home=home))
        user = await self._accounts.get(user_id)
        verdict = await self._accounts.judge_change(user, sealed, checked_text(code or ""), self._caller(user_id))
        verdict.check()
        self._sessions.end(user_id)
        return {"password_changed": True}

    async def sign_in(self, name: str | None, password: str | None, *, home: bool) -> dict[str, Any]:
        """Sign in with name and password."""
        user = await self._accounts.find(name) if name is not None else await self._only_human()
        return self._signed_in(await self._proof.prove(user, name, password, "session", home=home))

    async def status(self, signed_in: str | None) -> dict[str, Any]:
        """Whether proof is on."""
        user = await self._signed(signed_in)
        return {"user": user.name, "kind": user.kind, "mfa_enabled": user.mfa_enabled}

    async def set_up(self, signed_in: str | None) -> dict[str, Any]:
        """A secret, not kept until a code confirms it; for ten minutes until then, asking again gives the same."""
        user = await self._signed(signed_in)
        if user.mfa_enabled:
            raise Rejected("mfa_already_enabled")
        now_s = self._clock.monotonic_s()
        secret, until_s = self._set_ups.get(user.user_id, ("", 0.0))
        if not secret or now_s >= until_s:
            secret, until_s = codes.new_secret(), now_s + SET_UP_S
        self._set_ups[user.user_id] = (secret, until_s)
        self._set_ups.move_to_end(user.user_id)
        if len(self._set_ups) > SET_UPS_MAX:
            self._set_ups.popitem(last=False)
        uri = codes.provisioning_uri(secret, user.name, self._issuer)
        return {"secret": secret, "provisioning_uri": uri, "qr_svg": _qr(uri), "mfa_enabled": False}

    async def verify(self, signed_in: str | None, code: str | None) -> dict[str, Any]:
        """The code that confirms the secret; only now it is kept, and the code is used."""
        user = await self._signed(signed_in)
        if user.mfa_enabled:
            raise Rejected("mfa_already_enabled")
        secret, until_s = self._set_ups.get(user.user_id, ("", 0.0))
        if not secret or self._clock.monotonic_s() >= until_s:
            raise Rejected("mfa_not_set_up")
        verdict = await self._accounts.judge_set_up(user, secret, checked_text(code or ""), self._caller(user.user_id))
        verdict.check()
        self._set_ups.pop(user.user_id, None)
        return {"mfa_enabled": True}

    async def disable(self, signed_in: str | None, name: str | None, code: str | None) -> dict[str, Any]:
        """Off, and the secret erased, with a valid code."""
        self._accounts.sealer.check()
        if name is None:
            meant = await self._meant(signed_in, None)
            name = meant.user_id if meant is not None else ""
        own = signed_in is not None and key_of(name) == signed_in
        if own and not (await self._accounts.get(name)).mfa_enabled:
            raise Rejected("mfa_not_enabled")
        claim = await self._accounts.claim(name)
        if await self._accounts.kind_of(claim) == "agent":
            raise Rejected("not_for_agents")
        by = self._caller(UNPROVEN if signed_in is None else signed_in)
        (await self._accounts.judge(claim, checked_text(code or ""), "disable", by)).check()
        return {"mfa_enabled": False}

    async def reset(
        self, signed_in: str | None, name: str | None, password: str | None, *, home: bool
    ) -> dict[str, Any]:
        """Off without a code, by password: the way back when the phone is lost."""
        await self._proof.prove(await self._meant(signed_in, name), name, password, "reset", home=home)
        return {"mfa_enabled": False, "locked": False}

    async def unlock(
        self, signed_in: str | None, name: str | None, password: str | None, *, home: bool
    ) -> dict[str, Any]:
        """End a lock early, by password."""
        await self._proof.prove(await self._meant(signed_in, name), name, password, "unlock", home=home)
        return {"locked": False}

    async def keys(self) -> dict[str, Any]:
        """How many keys there are, and how many accounts are not sealed with the newest one yet."""
        old = 0
        for entry in await self._accounts.directory.entries():
            old += bool(on_old_keys(self._accounts.sealer, await self._accounts.get(entry.user_id)))
        return {"keys": self._accounts.sealer.keys, "accounts_on_old_keys": old}

    async def _signed(self, signed_in: str | None) -> User:
        if signed_in is None:
            raise Rejected("not_signed_in")
        return await self._accounts.get(signed_in)

    async def _meant(self, signed_in: str | None, name: str | None) -> User | None:
        """The account that is named, else the caller's, else the only human there is."""
        if name is not None:
            return await self._accounts.find(name) if key_of(name) else None
        return await self._accounts.get(signed_in) if signed_in is not None else await self._only_human()

    async def _only_human(self) -> User | None:
        humans = [entry.user_id for entry in await self._accounts.directory.entries() if entry.kind == "human"]
        return await self._accounts.get(humans[0]) if len(humans) == 1 else None

    def _signed_in(self, user_id: str) -> dict[str, Any]:
        return {"session": self._sessions.begin(user_id), "user": user_id, "expires_in": int(self._sessions.lasts_s)}

    def _caller(self, by: str) -> Caller:
        message_id = self._ids.new()
        return Caller(by=by, corr=message_id, message_id=message_id, reply="", headers={})


def _qr(uri: str) -> str:
    import segno

    return str(segno.make(uri, error="m").svg_inline(scale=4, border=2))
