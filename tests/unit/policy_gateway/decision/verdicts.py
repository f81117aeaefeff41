"""The shipped roles, and calls in one line: for the tests of decisions."""

import shlex
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.plans import Plan
from services.policy_gateway.decision.roles import SHIPPED, parse_roles
from services.policy_gateway.decision.verdict import Allow, Deny, Verdict

ROLES = parse_roles(SHIPPED.read_text(encoding="utf-8"))


class Call(NamedTuple):
    """One call as it arrives."""

    role: str
    tool: str
    args: Any
    opts: Any = None
    profile: str = "seed"

    def judged(self) -> Verdict:
        """What the shipped roles say."""
        return decide(ROLES, self.role, self.tool, self.args, self.opts, Facts(profile=self.profile))


def corpus(name: str) -> list[tuple[Call, str]]:
    """The calls of a corpus file, each with the code that it should be refused with (empty: allowed)."""
    calls = []
    document = tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    for group in document["calls"]:
        args = [{"cmd": shlex.split(line)} for line in group.get("lines", [])] + group.get("args", [])
        for one in args:
            call = Call(group["role"], group["tool"], one, group.get("opts"), group.get("profile", "seed"))
            calls.append((call, group.get("code", "")))
    return calls


def allowed(role: str, tool: str, args: Any, opts: Any = None, facts: Facts = Facts()) -> Plan:  # noqa: B008 it is immutable
    """The plan of a call that must be allowed."""
    verdict = decide(ROLES, role, tool, args, opts, facts)
    assert isinstance(verdict, Allow), verdict
    return verdict.plan


def denied(role: str, tool: str, args: Any, opts: Any = None, facts: Facts = Facts()) -> tuple[str, dict[str, Any]]:  # noqa: B008
    """Code and detail of a call that must be refused."""
    verdict = decide(ROLES, role, tool, args, opts, facts)
    assert isinstance(verdict, Deny), verdict
    return verdict.code, verdict.detail
