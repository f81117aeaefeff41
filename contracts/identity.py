"""The user aggregate: accounts of humans and agents, and every attempt to prove to be one of them.

No message here holds a code or a secret in the clear: secrets stand sealed (Fernet) and hold their owner and kind
inside; credentials and links stand as digests; an attempt stands as its step number and verdict. What does hold a code
or a fresh secret (`Converse`, `AgentCode`, …) travels by request and reply only, on subjects that no stream keeps.
"""

from typing import Any, Final, Literal

import msgspec

UserKind = Literal["human", "agent"]
Purpose = Literal["login", "setup", "disable", "approval", "deny", "challenge", "password"]
AttemptCode = Literal["invalid_code", "code_reused"]
ConversationState = Literal["await_name", "await_code", "confirmed", "refused"]

STEP_S: Final = 30
"""Seconds of one step; a code is good in its own step and in the one behind it."""
CODE_DIGITS: Final = 6
NAME_CHARS_MAX: Final = 64
JUDGED_PER_MINUTE_MAX: Final = 5
FAILURES_TO_LOCK: Final = 10
LOCK_FIRST_MS: Final = 15 * 60_000
LOCK_MAX_MS: Final = 24 * 3_600_000
FAILURES_TO_LOCK_FOR_GOOD: Final = 100

BEGAN_FILE: Final = "identity-began"
"""In the home's `keys`: there were accounts."""
BEGIN_ANEW_FILE: Final = "identity-begin-anew"
"""In the home's `keys`: a person on the host wants a new owner although accounts were lost."""
SET_UP_LINK_S: Final = 7 * 86_400
ASK_NAME: Final = "Who are you?"
ASK_CODE: Final = "Enter your code."
REFUSAL: Final = "That did not work."
"""The one spoken text of every failure, whatever its code."""


class _Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """A fact about one account."""


class UserCreated(_Event, frozen=True, omit_defaults=True, tag="user.created.v1"):
    """An account came to be. An agent has its secret and its credential from the beginning.

    `secret` is sealed; `credential` and `invitation` are SHA-256 digests of random tokens.
    """

    user_id: str
    name: str
    kind: UserKind
    at_ms: int
    secret: str | None = None
    credential: str | None = None
    invitation: str | None = None


class UserInvited(_Event, frozen=True, omit_defaults=True, tag="user.invited.v1"):
    """A new one-time set-up link replaced the one before."""

    invitation: str
    at_ms: int


class PasswordSet(_Event, frozen=True, omit_defaults=True, tag="user.password_set.v1"):
    """The local password was set by the one-time link, or changed by the old one and a code: a sealed Argon2id hash."""

    password: str
    at_ms: int


class MfaEnabled(_Event, frozen=True, omit_defaults=True, tag="user.mfa_enabled.v1"):
    """A code confirmed the secret; only now it is kept, sealed."""

    secret: str
    at_ms: int


class MfaDisabled(_Event, frozen=True, omit_defaults=True, tag="user.mfa_disabled.v1"):
    """The secret is gone: `by` is "code" (the owner's wish) or "reset" (password, on the host)."""

    by: Literal["code", "reset"]
    at_ms: int


class SecretRewrapped(_Event, frozen=True, omit_defaults=True, tag="user.secret_rewrapped.v1"):
    """The same secret and password, sealed with the newest key."""

    at_ms: int
    secret: str | None = None
    password: str | None = None


class GateRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A gate as it was shown: the digest binds the answer to the exact action."""

    approval_id: str
    digest: str = ""


class AttemptAccepted(_Event, frozen=True, omit_defaults=True, tag="user.attempt_accepted.v1"):
    """A code of `step` was right and not used before. `gates` are what it releases or denies, with their digests."""

    step: int
    purpose: Purpose
    at_ms: int
    gates: list[GateRef] = []
    reason: str = ""


class AttemptFailed(_Event, frozen=True, omit_defaults=True, tag="user.attempt_failed.v1"):
    """A code was judged and refused. `failures` counts those in a row; `step` is the one it belongs to, when used."""

    code: AttemptCode
    purpose: Purpose
    failures: int
    at_ms: int
    step: int | None = None


class UserLocked(_Event, frozen=True, omit_defaults=True, tag="user.locked.v1"):
    """Too many failures: no code is judged until `until_ms`; None means until a person on the host unlocks."""

    what: Literal["code", "password"]
    failures: int
    at_ms: int
    until_ms: int | None = None


class UserUnlocked(_Event, frozen=True, omit_defaults=True, tag="user.unlocked.v1"):
    """Password and presence on the host ended the lock and the counts."""

    at_ms: int


class UserNotified(_Event, frozen=True, omit_defaults=True, tag="user.notified.v1"):
    """What the human must hear of: channels follow this type."""

    about: Literal["locked", "code_reused"]
    text: str
    at_ms: int


class PasswordJudged(_Event, frozen=True, omit_defaults=True, tag="user.password_judged.v1"):
    """A password was judged. It has limits of its own, so that guessing it locks nobody's codes.

    `home` says that whoever gave it may read the home of the instance: those attempts have a budget of their own.
    """

    ok: bool
    at_ms: int
    home: bool = False


UserEvent = (
    UserCreated
    | UserInvited
    | PasswordSet
    | MfaEnabled
    | MfaDisabled
    | SecretRewrapped
    | AttemptAccepted
    | AttemptFailed
    | UserLocked
    | UserUnlocked
    | UserNotified
    | PasswordJudged
)


# Requests and replies -------------------------------------------------------------------------------------------------


class UserCreate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Create a human account. Its set-up link is written to a file of the host; agents are made by `agent.create`."""

    name: str
    kind: UserKind = "human"


class UserRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One account, by its name in any case."""

    name: str


class UserView(msgspec.Struct, frozen=True, omit_defaults=False):
    """An account as others may see it. `locked_until` is RFC 3339; with `needs_unlock` time alone ends no lock."""

    user_id: str
    name: str
    kind: UserKind
    mfa_enabled: bool
    password_set: bool
    locked: bool = False
    locked_until: str | None = None
    needs_unlock: bool = False
    failures: int = 0
    created_at: str = ""


class Converse(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of "Who are you?". A turn without a text, or the first one of a session, begins anew."""

    session: str = ""
    text: str = ""


class Said(msgspec.Struct, frozen=True, omit_defaults=False):
    """The answer to one turn. `say` is for people; `code` says why a proof was refused.

    Each of `gates` says what the code will release, before the code is given: `action` (null when it is large:
    `approval.show` has it), its `digest`, and a safe `summary` in one line. Show the summary with the prompt.
    `retry_after` (seconds) comes with rate_limited and locked, `until` (RFC 3339) with locked.
    """

    session: str
    state: ConversationState
    say: str
    user: str | None = None
    kind: UserKind | None = None
    code: str | None = None
    retry_after: int | None = None
    until: str | None = None
    gates: list[dict[str, Any]] = []


class AgentCreate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Create an agent; it has a secret from the beginning."""

    name: str


class AgentCreated(msgspec.Struct, frozen=True, omit_defaults=False):
    """A new agent. `credential` proves to be this agent; it is shown this once and kept only as a digest."""

    user_id: str
    name: str
    kind: UserKind
    mfa_enabled: bool
    credential: str


class AgentCode(msgspec.Struct, frozen=True, omit_defaults=True):
    """Read one's own code: who asks is told by the credential alone. Naming anybody is refused, oneself too."""

    credential: str = ""
    user: Any = None
    username: Any = None
    name: Any = None
    agent: Any = None


class AgentCodeShown(msgspec.Struct, frozen=True, omit_defaults=False):
    """The caller's own code, and for how many seconds it stays the current one."""

    agent: str
    code: str
    step: int
    seconds_left: float


class AgentChallenge(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent (by its credential) lets another prove who it is by its code."""

    agent: str
    code: str
    credential: str = ""


class AgentVerified(msgspec.Struct, frozen=True, omit_defaults=False):
    """The challenged agent is who it says; `by` asked."""

    agent: str
    kind: UserKind
    verified: bool
    by: str
