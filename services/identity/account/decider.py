"""User commands and what they lead to. Codes and passwords were compared before a command comes here: it says the
step that fitted, never the code; time comes in with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from contracts.errors import Rejected
from contracts.identity import (
    LOCK_MAX_MS,
    SET_UP_LINK_S,
    AttemptAccepted,
    AttemptCode,
    AttemptFailed,
    GateRef,
    MfaDisabled,
    MfaEnabled,
    PasswordJudged,
    PasswordSet,
    Purpose,
    SecretRewrapped,
    UserCreated,
    UserEvent,
    UserInvited,
    UserKind,
    UserLocked,
    UserNotified,
    UserUnlocked,
)
from services.identity.account.state import User, evolve, step_of
from services.runtime.decider import Decider


@dataclass(frozen=True, slots=True)
class CreateUser:
    """Create an account: an agent with sealed secret and credential, a human with the digest of a set-up link."""

    name: str
    kind: UserKind
    secret: str | None = None
    credential: str | None = None
    invitation: str | None = None


@dataclass(frozen=True, slots=True)
class InviteUser:
    """Replace the one-time link of an account that has no password yet: any, or the one with the digest `instead`."""

    invitation: str
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class SetPassword:
    """Set the password by the one-time link with this digest, which is good for `lasts_ms`."""

    password: str
    invitation: str
    lasts_ms: int = SET_UP_LINK_S * 1000


@dataclass(frozen=True, slots=True)
class JudgeAttempt:
    """Judge a code. `matched` is the newest step it fits, None when it fits none; `secret_no` is which secret was used.

    `secret` is what a set-up wants to keep, sealed; then `secret_no` is that of the account all the same. `password` is
    the new one, sealed, of whoever wants to change theirs.
    """

    purpose: Purpose
    matched: int | None
    secret_no: int
    secret: str | None = None
    gates: tuple[GateRef, ...] = ()
    reason: str = ""
    password: str | None = None


@dataclass(frozen=True, slots=True)
class JudgePassword:
    """Judge a password that was compared with the hash of `password_of`; then do what it was given for."""

    fits: bool
    then: str
    """session, reset, unlock or change."""
    home: bool = False
    """Whether it came from somebody who may read the home of the instance."""


@dataclass(frozen=True, slots=True)
class Rewrap:
    """Keep secret and password sealed with a newer key; `secret_no` is what was rewrapped."""

    secret_no: int
    secret: str | None
    password: str | None


UserCommand = CreateUser | InviteUser | SetPassword | JudgeAttempt | JudgePassword | Rewrap


def decide(command: UserCommand, user: User, now_ms: int) -> Sequence[UserEvent]:
    """Judge a wish against the facts."""
    match command:
        case CreateUser():
            return _create(command, user, now_ms)
        case InviteUser():
            if not user.exists or user.password is not None:
                raise Rejected("password_already_set" if user.exists else "user_not_found")
            if command.instead not in (None, user.invitation):
                return ()  # another replica was first
            return (UserInvited(invitation=command.invitation, at_ms=now_ms),)
        case SetPassword():
            if user.invitation is None or user.invitation != command.invitation:
                raise Rejected("bad_link")
            if now_ms >= user.invited_at_ms + command.lasts_ms:
                raise Rejected("bad_link", "the set-up link has run out")
            return (PasswordSet(password=command.password, at_ms=now_ms),)
        case JudgeAttempt():
            return _judge(command, user, now_ms)
        case JudgePassword():
            return _password(command, user, now_ms)
        case Rewrap():
            if command.secret_no != user.secret_no:
                raise Rejected("conflict", "the secret was changed meanwhile")
            return (SecretRewrapped(at_ms=now_ms, secret=command.secret, password=command.password),)
        case _:
            assert_never(command)


def _create(command: CreateUser, user: User, now_ms: int) -> Sequence[UserEvent]:
    if user.exists:
        raise Rejected("duplicate_id", f"there is an account {user.name} already", name=user.name)
    return (
        UserCreated(
            user_id=user.user_id,
            name=command.name,
            kind=command.kind,
            at_ms=now_ms,
            secret=command.secret,
            credential=command.credential,
            invitation=command.invitation,
        ),
    )


def _judge(command: JudgeAttempt, user: User, now_ms: int) -> Sequence[UserEvent]:
    user.codes.check(now_ms)
    if command.secret_no != user.secret_no:
        raise Rejected("conflict", "the secret was changed meanwhile")
    if command.purpose == "setup" and user.mfa_enabled:
        raise Rejected("mfa_already_enabled")
    at_ms, step = user.codes.now(now_ms), step_of(now_ms)
    matched = command.matched
    if matched is None or matched not in (step, step - 1):
        return _failed("invalid_code", None, command.purpose, user, at_ms)
    if matched <= user.last_step:
        return _failed("code_reused", matched, command.purpose, user, at_ms)
    gates = list(command.gates)
    accepted = AttemptAccepted(step=matched, purpose=command.purpose, at_ms=at_ms, gates=gates, reason=command.reason)
    if command.purpose == "setup" and command.secret is not None:
        return (accepted, MfaEnabled(secret=command.secret, at_ms=at_ms))
    if command.purpose == "password" and command.password is not None:
        return (accepted, PasswordSet(password=command.password, at_ms=at_ms))
    if command.purpose == "disable":
        return (accepted, MfaDisabled(by="code", at_ms=at_ms))
    return (accepted,)


def _failed(code: AttemptCode, step: int | None, purpose: Purpose, user: User, at_ms: int) -> Sequence[UserEvent]:
    failures = user.codes.failures_with_this(at_ms)
    events: list[UserEvent] = [
        AttemptFailed(code=code, purpose=purpose, failures=failures, at_ms=at_ms, step=step),
    ]
    if code == "code_reused" and user.exists:
        text = f"a code of {user.name} was used a second time: somebody may have seen it"
        events.append(UserNotified(about="code_reused", text=text, at_ms=at_ms))
    locks, until_ms = user.codes.lock_after_this(at_ms)
    if locks:
        events += _locked("code", user, user.codes.in_row + 1, at_ms, until_ms)
    return tuple(events)


def _locked(
    what: Literal["code", "password"], user: User, failures: int, at_ms: int, until_ms: int | None
) -> list[UserEvent]:
    """A lock, and that its human hears of it; a shadow has none."""
    locked = UserLocked(what=what, failures=failures, at_ms=at_ms, until_ms=until_ms)
    if not user.exists:
        return [locked]
    if what == "code":
        text = f"{user.name} is locked after {failures} wrong codes in a row"
    else:
        text = f"the password of {user.name} is locked after {failures} wrong ones in a row"
    return [locked, UserNotified(about="locked", text=text, at_ms=at_ms)]


def _password(command: JudgePassword, user: User, now_ms: int) -> Sequence[UserEvent]:
    limiter = user.home_passwords if command.home else user.passwords
    limiter.check(now_ms)
    at_ms = limiter.now(now_ms)
    if command.fits and user.exists:
        # What it does is done by the clock as it is: judgements of a time when it ran ahead end with it.
        judged = PasswordJudged(ok=True, at_ms=at_ms, home=command.home)
        match command.then:
            case "reset":
                erased = (MfaDisabled(by="reset", at_ms=now_ms),) if user.mfa_enabled else ()
                return (judged, *erased, UserUnlocked(at_ms=now_ms))
            case "unlock":
                return (judged, UserUnlocked(at_ms=now_ms))
            case _:
                return (judged,)
    events: list[UserEvent] = [PasswordJudged(ok=False, at_ms=at_ms, home=command.home)]
    locks, until_ms = limiter.lock_after_this(at_ms)
    if locks and not command.home:
        # A password is proved on the host only; there is nobody nearer who could unlock it: it never locks for good.
        until_ms = until_ms if until_ms is not None else at_ms + LOCK_MAX_MS
        events += _locked("password", user, user.passwords.in_row + 1, at_ms, until_ms)
    return tuple(events)


def summary(user: User) -> dict[str, object] | None:
    """What a list shows: everything but secrets."""
    if not user.exists:
        return None
    return {
        "name": user.name,
        "kind": user.kind,
        "mfa": user.mfa_enabled,
        "password": user.password is not None,
        "until_ms": user.codes.locked_until_ms,
        "for_good": user.codes.for_good,
        "failures": user.codes.failures,
        "at_ms": user.created_at_ms,
    }


USER: Final[Decider[UserCommand, User, UserEvent]] = Decider(
    initial=User, decide=decide, evolve=evolve, is_terminal=lambda _: False, summary=summary
)
