"""An account as its events tell it."""

from dataclasses import dataclass, field

from contracts.identity import (
    STEP_S,
    AttemptAccepted,
    AttemptFailed,
    MfaDisabled,
    MfaEnabled,
    PasswordJudged,
    PasswordSet,
    SecretRewrapped,
    UserCreated,
    UserEvent,
    UserInvited,
    UserKind,
    UserLocked,
    UserNotified,
    UserUnlocked,
)
from services.identity.account.limiter import Limiter


def step_of(at_ms: int) -> int:
    """The step that a moment belongs to."""
    return at_ms // (STEP_S * 1000)


@dataclass(slots=True)
class User:
    """One account; `kind` is None until it is created, which shadows never are.

    `secret_no` counts what happened to secret and password: a code that was compared with another secret is not judged.
    """

    user_id: str
    name: str = ""
    kind: UserKind | None = None
    created_at_ms: int = 0
    secret: str | None = None
    secret_no: int = 0
    password: str | None = None
    invitation: str | None = None
    invited_at_ms: int = 0
    credential: str | None = None
    last_step: int = 0
    codes: Limiter = field(default_factory=Limiter)
    passwords: Limiter = field(default_factory=Limiter)
    home_passwords: Limiter = field(default_factory=Limiter)

    @property
    def exists(self) -> bool:
        """Whether it was created."""
        return self.kind is not None

    @property
    def mfa_enabled(self) -> bool:
        """Whether a code can prove to be this account."""
        return self.secret is not None


def evolve(user: User, event: UserEvent) -> User:
    """Take a fact in."""
    match event:
        case UserCreated():
            user.name, user.kind, user.created_at_ms = event.name, event.kind, event.at_ms
            user.secret, user.credential, user.invitation = event.secret, event.credential, event.invitation
            user.invited_at_ms = event.at_ms
            user.secret_no += 1
        case UserInvited():
            user.invitation, user.invited_at_ms = event.invitation, event.at_ms
        case PasswordSet():
            user.secret_no += user.password is not None
            user.password, user.invitation = event.password, None
        case MfaEnabled():
            user.secret = event.secret
            user.secret_no += 1
        case MfaDisabled():
            # Steps that a clock which ran ahead put into the future are not used: their secret is gone.
            user.secret, user.last_step = None, min(user.last_step, step_of(event.at_ms))
            user.secret_no += 1
        case SecretRewrapped():
            user.secret = event.secret if event.secret is not None else user.secret
            user.password = event.password if event.password is not None else user.password
            user.secret_no += 1
        case AttemptAccepted():
            user.codes.succeeded(event.at_ms)
            user.last_step = max(user.last_step, event.step)
        case AttemptFailed():
            user.codes.failed(event.at_ms)
        case PasswordJudged():
            limiter = user.home_passwords if event.home else user.passwords
            (limiter.succeeded if event.ok else limiter.failed)(event.at_ms)
        case UserLocked():
            (user.codes if event.what == "code" else user.passwords).locked(event.until_ms)
        case UserUnlocked():
            for limiter in (user.codes, user.passwords, user.home_passwords):
                limiter.cleared(event.at_ms)
        case UserNotified():
            return user
    return user
