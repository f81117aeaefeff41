"""Tool calls, the policy that judges them, and the audit that remembers: requests, events and what queries answer.

A call of a task is named by (run, task, attempt, call): it has one effect, and whoever asks again gets the recorded
answer. Entries of the audit are chained: `hash` is the SHA-256 of the entry's other fields as sorted JSON, of which
`prev` is the hash of the entry before; `n` counts from 1.
"""

from typing import Any, Final, Literal

import msgspec

AUDIT_ID: Final = "main"
"""The one aggregate of all audit entries."""
POLICY_ID: Final = "main"
"""The one aggregate of all versions of the policy."""
GENESIS: Final = "0" * 64
"""The `prev` of the first entry."""
ATTACKS: Final = (
    "http_exfiltration",
    "dangerous_git",
    "unauthorized_file_write",
    "shell_injection",
    "network_backdoor",
    "unauthorized_file_read",
    "container_escape",
    "lua_escape",
    "role_escalation",
    "resource_abuse",
    "tool_misuse",
)
"""Every refusal is of one of these kinds; the first five are those that the statistics always name."""

VerdictWord = Literal["allow", "deny"]


class CallOf(msgspec.Struct, frozen=True, omit_defaults=True):
    """The task a call belongs to: `call` counts the calls of this attempt, from 1."""

    run_id: str
    task_id: str
    attempt: int
    call: int


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tool call, sent to `htdag.v1.tool.<role>.<tool>`. A task's workspace is that of its run, not `workspace`.

    What `args` and `opts` may hold depends on the tool; the decision looks at them, and at nothing else but `barred`:
    whoever sends this has refused it already. It is judged and recorded like any other, and never allowed.
    """

    args: Any
    opts: Any = {}
    task: CallOf | None = None
    workspace: str | None = None
    barred: bool = False


# Requests -------------------------------------------------------------------------------------------------------


class PolicyDecide(msgspec.Struct, frozen=True, omit_defaults=True):
    """Judge a call without any effect and without a trace in the audit."""

    role: str
    tool: str
    args: Any
    opts: Any = {}
    workspace: str | None = None


class PolicyPut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Make this TOML text the policy, everywhere and at once."""

    text: str


class PolicyDiff(msgspec.Struct, frozen=True, omit_defaults=True):
    """Judge the calls of the past again by `text`. `since` is a duration such as 7d or 12h, or an RFC 3339 time."""

    text: str
    since: str = "7d"
    limit: int = 1000


class AuditStats(msgspec.Struct, frozen=True, omit_defaults=True):
    """Count calls and refusals, of all times or `since`."""

    since: str | None = None


class AuditQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """Entries of the audit, newest last: at most `limit` of the newest that fit every filter given."""

    since: str | None = None
    role: str | None = None
    tool: str | None = None
    run: str | None = None
    task: str | None = None
    code: str | None = None
    verdict: VerdictWord | None = None
    limit: int = 100


class AuditVerify(msgspec.Struct, frozen=True, omit_defaults=True):
    """Walk the whole chain. `key` is the public key that checkpoints must be signed with; else that of this home."""

    key: str | None = None


class CallAsk(msgspec.Struct, frozen=True, omit_defaults=True):
    """Between gateways: is this call under way with you? With `wait_s`, answer when it has ended, or after so long.

    `of` says that this is a call of a task that is over: whoever sees that in the run's log too ends the call first.
    """

    id: str
    wait_s: float = 0.0
    of: CallOf | None = None


class CallStanding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A gateway's answer: whether the call is under way now."""

    under_way: bool


# Events of the policy -------------------------------------------------------------------------------------------


class PolicyStored(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="policy.put.v1"):
    """A version of the policy was stored and is in force. `version` counts from 1; 0 is the shipped one."""

    version: int
    digest: str
    text: str


PolicyEvent = PolicyStored


# Events of one call ---------------------------------------------------------------------------------------------


class ToolDecided(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tool.decided.v1"):
    """A call was judged; this is stored before anything is done. `id` names the call, `by` who sent it.

    `args` are shown without secrets and without contents of files; `exact` says that they suffice to judge the call
    again. `args_sha256` is a fingerprint of all of them under a key of the gateway's home. `rule` is what permitted or
    refused. `attack` is one of ATTACKS when the policy refused it; a call that could not even be judged (its rule
    begins with `call.`) is refused too, and no attack.
    """

    n: int
    prev: str
    hash: str
    at_ms: int
    id: str
    verdict: VerdictWord
    role: str
    tool: str
    by: str
    gateway: str
    policy_version: int
    policy_digest: str
    rule: str
    args: Any
    args_sha256: str
    opts: Any = {}
    exact: bool = False
    code: str = ""
    detail: dict[str, Any] = {}
    attack: str = ""
    timeout_ms: int = 0
    profile: str = ""
    sandbox: str = ""
    workspace: str = ""
    run_id: str = ""
    task_id: str = ""
    attempt: int = 0
    call: int = 0


class ToolFinished(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="tool.finished.v1"):
    """An allowed call ended. `code` is empty when it ended well; `bytes` is the size of the answer.

    A refusal that only showed while the tool ran (a link, an address, a redirect) has its `attack` here.
    """

    n: int
    prev: str
    hash: str
    at_ms: int
    id: str
    role: str
    tool: str
    by: str
    gateway: str
    duration_ms: float
    code: str = ""
    exit: int | None = None
    bytes: int = 0
    truncated: bool = False
    attack: str = ""
    run_id: str = ""
    task_id: str = ""
    attempt: int = 0
    call: int = 0


class SecurityRaised(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="security.raised.v1"):
    """Somebody should look: `kind` is role_mismatch (a call claimed another role than its task has) or denial_burst."""

    n: int
    prev: str
    hash: str
    at_ms: int
    kind: Literal["role_mismatch", "denial_burst"]
    role: str
    by: str
    gateway: str
    count: int = 1
    id: str = ""
    detail: dict[str, Any] = {}
    run_id: str = ""
    task_id: str = ""


class CallsUnjudged(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="calls.unjudged.v1"):
    """So many calls since `since_ms` could not be judged, and have no entry each: `reasons` counts them.

    A reason is the code of an error, or what was wrong around the message: `redirected`, `reply_not_inbox`.
    What is malformed, belongs to no attempt that is under way, or finds no room has an entry of its own only so often
    a minute: a flood of it must not fill the disk.
    """

    n: int
    prev: str
    hash: str
    at_ms: int
    gateway: str
    since_ms: int
    count: int
    reasons: dict[str, int]


class AuditCheckpoint(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="audit.checkpoint.v1"):
    """The chain up to `prev` is signed: Ed25519 over `htdag-audit-v1 <n> <prev> <at_ms>`; key, signature in hex."""

    n: int
    prev: str
    hash: str
    at_ms: int
    gateway: str
    key: str
    signature: str


AuditEvent = ToolDecided | ToolFinished | SecurityRaised | CallsUnjudged | AuditCheckpoint


class CallClaimed(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="call.claimed.v1"):
    """A gateway has taken this call of a task, and nobody else ever will. `audit_seq`: where its audit was by then."""

    decided: ToolDecided
    audit_seq: int


class CallFinished(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="call.finished.v1"):
    """The call's answer for ever: `value`, or `error`. `cut` says that the value was too large and was shortened."""

    finished_by: str
    duration_ms: float
    value: Any = None
    error: dict[str, Any] | None = None
    cut: bool = False


CallEvent = CallClaimed | CallFinished


# What queries answer ----------------------------------------------------------------------------------------------


class Decision(msgspec.Struct, frozen=True, omit_defaults=False):
    """A dry decision."""

    verdict: VerdictWord
    code: str | None
    rule: str
    detail: dict[str, Any]
    policy_version: int


class PolicyView(msgspec.Struct, frozen=True, omit_defaults=False):
    """The policy in force: version 0 is the shipped one. `roles` says what each role may."""

    version: int
    digest: str
    roles: dict[str, Any]
    text: str = ""


class VerdictChange(msgspec.Struct, frozen=True, omit_defaults=False):
    """One past call on which another policy would have decided differently."""

    id: str
    at: str
    role: str
    tool: str
    args: Any
    was: VerdictWord
    was_code: str
    now: VerdictWord
    now_code: str
    now_rule: str


class PolicyDifference(msgspec.Struct, frozen=True, omit_defaults=False):
    """What another policy would have changed: `not_judged` counts calls of which too little was kept, by reason."""

    version: int
    digest: str
    judged: int
    not_judged: dict[str, int]
    changed: list[VerdictChange]
    more: int


class PolicyStatistics(msgspec.Struct, frozen=True, omit_defaults=False):
    """Calls, and those that were refused, by kind of attack; the kinds add up to the refused."""

    total_tool_calls: int
    policy_violations_blocked: int
    attacks_by_type: dict[str, int]


class AuditRow(msgspec.Struct, frozen=True, omit_defaults=False):
    """One decision with its end, if it has ended."""

    n: int
    at: str
    id: str
    verdict: VerdictWord
    role: str
    tool: str
    by: str
    code: str
    rule: str
    attack: str
    args: Any
    args_sha256: str
    detail: dict[str, Any]
    run_id: str
    task_id: str
    attempt: int
    call: int
    workspace: str
    policy_version: int
    ended: str | None
    duration_ms: float | None
    exit: int | None
    bytes: int | None


class AuditVerified(msgspec.Struct, frozen=True, omit_defaults=False):
    """The chain holds: so many entries, so many good signatures, the last of them over entry `signed_up_to`.

    Messages that somebody smuggled into the stream are no part of it: `forged` counts them, and `forged_at` gives the
    sequences of the newest of them in `stream`.
    """

    entries: int
    checkpoints: int
    signed_up_to: int
    head: str
    keys: list[str]
    stream: str = ""
    forged: int = 0
    forged_at: list[int] = []
