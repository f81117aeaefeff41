"""The two outcomes of a decision."""

from typing import Any, NamedTuple

from services.policy_gateway.decision.plans import Plan


class Allow(NamedTuple):
    """Permitted: `plan` is all that may be done, within `timeout_ms` for the whole call. `rule` says what permitted."""

    rule: str
    plan: Plan
    timeout_ms: int


class Deny(NamedTuple):
    """Refused. `code` is of `contracts.errors`, `rule` says what refused; `detail` is JSON data for the caller."""

    code: str
    rule: str
    detail: dict[str, Any]


Verdict = Allow | Deny
