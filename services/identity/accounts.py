"""Accounts at the edge: who a name is, and the judging of one code.

Whoever says a name that nobody has, or whose proof is not on, is a shadow: one of a fixed number of buckets with a log
of its own and the same limits. Everything costs the same for a shadow: its code is compared with a secret too, and its
failure is stored before it is answered.
"""

import hmac
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from contracts.errors import Rejected
from contracts.identity import AttemptAccepted, AttemptFailed, GateRef, Purpose, UserEvent, UserKind, UserLocked
from services.identity import codes
from services.identity.account.decider import JudgeAttempt, UserCommand
from services.identity.account.state import User
from services.identity.directory import Directory
from services.identity.names import key_of
from services.identity.sealing import Sealer
from services.runtime.actor import ActorHost
from services.runtime.clock import Clock, rfc3339
from services.runtime.lifecycle import Log
from services.runtime.metrics import Metrics
from services.runtime.rpc import Caller

BUCKETS: Final = 4_096
PROFILES_MAX: Final = 10_000
RETRIES_MAX: Final = 5
SHADOW: Final = "shadow"
REFUSALS: Final = frozenset({"rate_limited", "locked"})

UserHost = ActorHost[UserCommand, User, UserEvent]


class Profile(NamedTuple):
    """What is needed to compare a code; the secret stays sealed."""

    name: str
    kind: UserKind | None
    secret: str | None
    secret_no: int


class Claim(NamedTuple):
    """Who somebody says to be: an account whose proof is on, or a bucket of those that nobody is."""

    actor_id: str
    shadow: bool


class Verdict(NamedTuple):
    """What became of one attempt. `user` and `kind` are known when it was accepted, and only then."""

    accepted: bool
    code: str | None = None
    user_id: str = ""
    user: str | None = None
    kind: UserKind | None = None
    step: int = 0
    at_ms: int = 0
    retry_after: int | None = None
    until_ms: int | None = None

    def check(self) -> None:
        """Raise the refusal that this verdict is, with what it says of time; return when it is none."""
        if self.accepted:
            return
        until = None if self.until_ms is None else rfc3339(self.until_ms)
        said = {"retry_after": self.retry_after, "until": until}
        raise Rejected(str(self.code), None, **{key: value for key, value in said.items() if value is not None})


class Accounts:
    """Looks accounts up and judges attempts, whatever the channel."""

    def __init__(
        self, *, users: UserHost, shadows: UserHost, directory: Directory, sealer: Sealer, clock: Clock,
        metrics: Metrics, log: Log,
    ) -> None:  # fmt: skip
        self.users, self.shadows, self.directory = users, shadows, directory
        self.sealer, self._clock = sealer, clock
        self._metrics, self._log = metrics, log
        self._profiles: OrderedDict[str, Profile] = OrderedDict()
        self._pepper = sealer.derived("names")
        self._nobodys, self._nobodys_version = "", 0

    async def find(self, name: str) -> User | None:
        """The account of a name, as the log has it now."""
        key = key_of(name)
        if key is None:
            return None
        user, _ = await self.users.read(key)
        return user if user.exists else None

    async def get(self, name: str) -> User:
        """The account of a name. Raises user_not_found."""
        user = await self.find(name)
        if user is None:
            raise Rejected("user_not_found")
        return user

    async def claim(self, text: str) -> Claim:
        """Who `text` names. The log is asked for every name that could be one."""
        key = key_of(text)
        if key is not None:
            user, _ = await self.users.read(key)
            if user.mfa_enabled:
                self._remember(user)
                return Claim(key, False)
        return self.nobody(text)

    def nobody(self, text: str) -> Claim:
        """The bucket of a name that nobody has, or that is to be treated so."""
        return Claim(self._bucket(key_of(text) or text), True)

    async def kind_of(self, claim: Claim) -> UserKind | None:
        """Human or agent; None for a shadow."""
        return None if claim.shadow else (await self._profile(claim.actor_id)).kind

    async def judge(
        self, claim: Claim, text: str, purpose: Purpose, caller: Caller,
        *, gates: Sequence[GateRef] = (), reason: str = "",
    ) -> Verdict:  # fmt: skip
        """Judge one code; what was judged is stored when this returns, also when nobody waits for it any more."""
        for _ in range(RETRIES_MAX):
            compared = await self._compared_with(claim)
            if compared is None:
                claim = Claim(self._bucket(claim.actor_id), True)
                continue
            profile, secret = compared
            matched = codes.matched_step(secret, text, self._clock.now_ms())
            command = JudgeAttempt(
                purpose=purpose,
                matched=None if claim.shadow else matched,
                secret_no=profile.secret_no,
                gates=tuple(gates),
                reason=reason,
            )
            verdict = await self._ask(claim, command, profile, caller)
            if verdict is not None:
                return verdict
            # The secret was changed meanwhile, here or in another replica: compare with the new one.
            self._profiles.pop(claim.actor_id, None)
        raise Rejected("conflict", "the account changes too often")

    async def _compared_with(self, claim: Claim) -> tuple[Profile, str] | None:
        """With which secret a code is compared; None when the account has none any more."""
        if claim.shadow:
            nobody = self._nobody()
            return nobody, self.sealer.open(SHADOW, "totp", nobody.secret or "")
        profile = await self._profile(claim.actor_id)
        if profile.secret is None:
            return None
        try:
            return profile, self.sealer.open(claim.actor_id, "totp", profile.secret)
        except Rejected:
            # What is remembered may be sealed with a key that is gone; then the log has it anew.
            self._profiles.pop(claim.actor_id, None)
        profile = await self._profile(claim.actor_id)
        if profile.secret is None:
            return None
        return profile, self.sealer.open(claim.actor_id, "totp", profile.secret)

    def _nobody(self) -> Profile:
        """What a shadow's code is compared with, for nothing: a secret like anybody's, sealed with the keys of now."""
        version = self.sealer.version
        if self._nobodys_version != version:
            self._nobodys, self._nobodys_version = self.sealer.seal(SHADOW, "totp", codes.new_secret()), version
        return Profile("", None, self._nobodys, 0)

    async def judge_set_up(self, user: User, secret: str, text: str, caller: Caller) -> Verdict:
        """Judge the code that confirms a new secret, and keep the secret when it is right."""
        matched = codes.matched_step(secret, text, self._clock.now_ms())
        sealed = self.sealer.seal(user.user_id, "totp", secret)
        command = JudgeAttempt(purpose="setup", matched=matched, secret_no=user.secret_no, secret=sealed)
        return await self._judge_as_it_is(user, command, caller)

    async def judge_change(self, user: User, password: str, text: str, caller: Caller) -> Verdict:
        """Judge the code of somebody who proved the old password, and keep the new one, sealed, when it is right."""
        if user.secret is None:
            raise Rejected("mfa_not_enabled")
        secret = self.sealer.open(user.user_id, "totp", user.secret)
        matched = codes.matched_step(secret, text, self._clock.now_ms())
        command = JudgeAttempt(purpose="password", matched=matched, secret_no=user.secret_no, password=password)
        return await self._judge_as_it_is(user, command, caller)

    async def _judge_as_it_is(self, user: User, command: JudgeAttempt, caller: Caller) -> Verdict:
        """Judge what changes the account, on condition that nobody else has changed it meanwhile."""
        verdict = await self._ask(Claim(user.user_id, False), command, _profile_of(user), caller)
        self._profiles.pop(user.user_id, None)
        if verdict is None:
            raise Rejected("conflict", "the account was changed meanwhile")
        return verdict

    async def _ask(self, claim: Claim, command: JudgeAttempt, profile: Profile, caller: Caller) -> Verdict | None:
        """The stored verdict; None when the secret that was compared is not the account's any more."""
        host = self.shadows if claim.shadow else self.users
        try:
            outcome = await host.ask(
                claim.actor_id, command, message_id=caller.message_id, by=caller.by, corr=caller.corr
            )
        except Rejected as error:
            if error.code == "conflict":
                return None
            if error.code not in REFUSALS:
                raise
            verdict = Verdict(
                False,
                error.code,
                retry_after=error.detail.get("retry_after"),
                until_ms=error.detail.get("until_ms"),
            )
        else:
            verdict = self._told(claim, outcome.events, profile)
        result = "accepted" if verdict.accepted else str(verdict.code)
        self._metrics.inc("htdag_totp_attempts_total", purpose=command.purpose, result=result)
        who = SHADOW if claim.shadow else claim.actor_id
        self._log.info("attempt", user=who, purpose=command.purpose, verdict=result, step=verdict.step or None)
        return verdict

    def _told(self, claim: Claim, events: Sequence[UserEvent], profile: Profile) -> Verdict:
        if any(isinstance(event, UserLocked) for event in events):
            self._metrics.inc("htdag_account_lockouts_total")
        match events[0]:
            case AttemptAccepted(step=step, at_ms=at_ms):
                return Verdict(
                    True, user_id=claim.actor_id, user=profile.name, kind=profile.kind, step=step, at_ms=at_ms
                )
            case AttemptFailed(code=code, at_ms=at_ms):
                return Verdict(False, code, at_ms=at_ms)
            case _:
                raise Rejected("internal", "a judgement without a verdict")

    async def _profile(self, user_id: str) -> Profile:
        profile = self._profiles.get(user_id)
        if profile is None:
            user, _ = await self.users.read(user_id)
            profile = self._remember(user)
        return profile

    def _remember(self, user: User) -> Profile:
        profile = _profile_of(user)
        self._profiles[user.user_id] = profile
        self._profiles.move_to_end(user.user_id)
        if len(self._profiles) > PROFILES_MAX:
            self._profiles.popitem(last=False)
        return profile

    def _bucket(self, text: str) -> str:
        digest = hmac.digest(self._pepper, text.strip().lower().encode(errors="replace"), "sha256")
        return f"b{int.from_bytes(digest[:4]) % BUCKETS}"


def _profile_of(user: User) -> Profile:
    return Profile(user.name, user.kind, user.secret, user.secret_no)
