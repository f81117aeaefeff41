"""The approval aggregate: a gate before a dangerous action, bound to the digest of exactly this action.

The executor asks by a durable command on `htdag.v1.cmd.identity.approval.<id>.request`; what became of the gate goes to
the run's own mailbox as `TakeApproval`. Only identity writes these events, and only a human's fresh code grants.
"""

import json
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from contracts.identity import GateRef, UserKind
from contracts.taint import Reading

ApprovalStatus = Literal["open", "granted", "denied", "expired", "stale", "withdrawn"]
Outcome = Literal["granted", "denied", "expired", "stale"]

APPROVAL_TIMEOUT_DEFAULT_MS: Final = 15 * 60_000
APPROVAL_TIMEOUT_MAX_MS: Final = 7 * 86_400_000
GATES_PER_CODE_MAX: Final = 50
ACTION_BYTES_MAX: Final = 256 << 10
ACTION_LISTED_BYTES_MAX: Final = 4096
APPROVERS_MAX: Final = 100
DIGEST_CHARS: Final = 64


def action_digest(action: Any) -> str:
    """Identifies an action: SHA-256 of its JSON with sorted keys and no spaces. Raises ValueError for NaN."""
    text = json.dumps(action, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(text.encode()).hexdigest()


class _Tagged(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """A tagged message."""


class RequestApproval(_Tagged, frozen=True, omit_defaults=True, tag="approval.request.v1"):
    """Open a gate. `action` is everything that will be done, `digest` its `action_digest`.

    `approvers` names the humans who may answer; empty means every human. It is open until `expires_at_ms`, or for
    `timeout_ms` from when identity takes it in. The same again changes nothing; another digest under the same id makes
    the gate stale. `read_from` is what the task and those before it read from outside, as far as it is told; at least
    `read_more` things more were read. It is no part of the action: the digest does not cover it.
    """

    run_id: str
    task_id: str
    digest: str
    action: Any
    title: str = ""
    attempt: int = 1
    requested_by: str = ""
    approvers: list[str] = []
    expires_at_ms: int | None = None
    timeout_ms: int = APPROVAL_TIMEOUT_DEFAULT_MS
    read_from: list[Reading] = []
    read_more: int = 0


class WithdrawApproval(_Tagged, frozen=True, omit_defaults=True, tag="approval.withdraw.v1"):
    """Nobody needs the answer any more: the run was cancelled or the task is over."""

    reason: str = ""


ApprovalMessage = RequestApproval | WithdrawApproval
"""What others may say to a gate by its durable mailbox."""


class TakeApproval(_Tagged, frozen=True, omit_defaults=True, tag="approval.answer.v1"):
    """What became of a gate, in the mailbox of its run. It may come twice: the gate's first answer counts.

    Whoever acts on it checks `digest` against the action once more, and uses one grant once. `signature` (Ed25519, hex)
    is over `signed_text`; `key` is the public key, hex.
    """

    approval_id: str
    run_id: str
    task_id: str
    attempt: int
    outcome: Outcome
    digest: str
    at_ms: int
    user: str | None = None
    kind: UserKind | None = None
    step: int | None = None
    reason: str = ""
    code: str = ""
    signature: str = ""
    key: str = ""


def signed_text(
    *, approval_id: str, run_id: str, task_id: str, attempt: int, digest: str, user: str, step: int, at_ms: int
) -> bytes:
    """What the signature of a grant covers: one field a line."""
    lines = ("htdag.approval.v1", approval_id, run_id, task_id, str(attempt), digest, user, str(step), str(at_ms))
    return "\n".join(lines).encode()


class ApprovalRequested(_Tagged, frozen=True, omit_defaults=True, tag="approval.requested.v1"):
    """A gate stands open."""

    approval_id: str
    run_id: str
    task_id: str
    attempt: int
    digest: str
    action: Any
    title: str
    requested_by: str
    approvers: list[str]
    at_ms: int
    expires_at_ms: int
    read_from: list[Reading] = []
    read_more: int = 0


class ApprovalGranted(_Tagged, frozen=True, omit_defaults=True, tag="approval.granted.v1"):
    """A human's fresh code released the action with this digest. `batch` are all gates that this one code released."""

    user: str
    kind: UserKind
    step: int
    digest: str
    at_ms: int
    signature: str = ""
    key: str = ""
    batch: list[GateRef] = []


class ApprovalDenied(_Tagged, frozen=True, omit_defaults=True, tag="approval.denied.v1"):
    """A human proved who they are and said no."""

    user: str
    step: int
    at_ms: int
    reason: str = ""


class ApprovalExpired(_Tagged, frozen=True, omit_defaults=True, tag="approval.expired.v1"):
    """Nobody answered in time. That never counts as a yes."""

    at_ms: int


class ApprovalStale(_Tagged, frozen=True, omit_defaults=True, tag="approval.stale.v1"):
    """The action was changed after the request: `digest` is what was asked for then."""

    digest: str
    at_ms: int


class ApprovalWithdrawn(_Tagged, frozen=True, omit_defaults=True, tag="approval.withdrawn.v1"):
    """Nobody needs it any more."""

    at_ms: int
    reason: str = ""


class ApprovalAttemptRefused(_Tagged, frozen=True, omit_defaults=True, tag="approval.attempt_refused.v1"):
    """Somebody who may not answer tried; no code was looked at. The first few of a gate are kept."""

    user: str
    code: str
    at_ms: int


class ApprovalAnswered(_Tagged, frozen=True, omit_defaults=True, tag="approval.answered.v1"):
    """The answer lies in the mailbox of the run."""

    outcome: Outcome
    at_ms: int


ApprovalEvent = (
    ApprovalRequested
    | ApprovalGranted
    | ApprovalDenied
    | ApprovalExpired
    | ApprovalStale
    | ApprovalWithdrawn
    | ApprovalAttemptRefused
    | ApprovalAnswered
)


# Requests and replies -------------------------------------------------------------------------------------------------


class ApprovalList(msgspec.Struct, frozen=True, omit_defaults=True):
    """Gates, the one that expires first first: the open ones, or all that are remembered, open ones first.

    At most `limit`, and no more than an answer carries. With the last id of a page as `after` comes the next page; an
    empty one is the end of the list.
    """

    run_id: str | None = None
    all: bool = False
    limit: int = 200
    after: str | None = None


class ApprovalRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One gate."""

    approval_id: str


class ApprovalKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """The public key (Ed25519, hex) by which identity signs what humans release: see `signed_text`."""

    key: str


class ApprovalConverse(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of the conversation that releases gates: one by `approval_id` (and its `digest`), or all of `gates`.

    Say the gates in every turn: whoever knows a session's name could begin another conversation in it. To say them in
    the first turn only is enough where the code comes over the same connection as the name (its replies go to the same
    inbox) and the session spoke of no other gates before. A digest that is not the gate's is approval_stale.
    """

    session: str = ""
    text: str = ""
    approval_id: str | None = None
    digest: str = ""
    gates: list[GateRef] = []


class ApprovalDeny(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of the conversation that denies gates; only a human who proves it can say no in a run's name."""

    session: str = ""
    text: str = ""
    approval_id: str | None = None
    gates: list[GateRef] = []
    reason: str = ""


class ApprovalView(msgspec.Struct, frozen=True, omit_defaults=False):
    """A gate as people and programs see it. `action` is exactly what will be done, `summary` the same in one safe line.

    Lists leave out (null) an action of more than 4096 bytes; `approval.show` has it. `left_ms` is what is left of an
    open gate by the clock that closes it. `read_from` is what the task and those before it read from outside; at least
    `read_more` things more are not told here.
    """

    approval_id: str
    status: ApprovalStatus
    run_id: str
    task_id: str
    attempt: int
    title: str
    digest: str
    action: Any
    requested_by: str
    approvers: list[str]
    requested_at: str
    expires_at: str
    expires_at_ms: int
    user: str | None = None
    kind: UserKind | None = None
    step: int | None = None
    reason: str = ""
    answered_at: str | None = None
    signature: str = ""
    signature_ok: bool | None = None
    action_bytes: int = 0
    summary: str = ""
    left_ms: int | None = None
    read_from: list[Reading] = []
    read_more: int = 0
