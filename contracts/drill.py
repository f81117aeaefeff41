"""What the attack drill of the policy-gateway reports."""

from typing import Any, Literal

import msgspec


class DrillRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Run the drill, whole or only the attacks that are named by their number."""

    attacks: list[int] = []


class DrillAttempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt. `refused` by the policy, `contained` by the sandbox, or `harm` when something got through.

    `code` is the code of the refusal or failure, "" when the call was allowed and ended by itself; `harm` says what
    was found afterwards; `would_lose` is what a system without policy and sandbox would have lost.
    """

    id: str
    title: str
    role: str
    tool: str
    outcome: Literal["refused", "contained", "harm"]
    code: str = ""
    harm: list[str] = []
    would_lose: str = ""
    took_ms: float = 0.0


class DrillAttack(msgspec.Struct, frozen=True):
    """One of the five attacks with its variants."""

    number: int
    name: str
    blocked: int
    total: int
    attempts: list[DrillAttempt]


class DrillReport(msgspec.Struct, frozen=True):
    """The whole drill. `ok`: everything was blocked, the gateway stayed responsive and nothing was left behind."""

    ok: bool
    attacks: list[DrillAttack]
    probe_max_ms: float
    left_behind: list[str]
    facts: dict[str, Any] = {}
