"""`policy.decide|roles|put|diff`."""

from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.limits import POLICY_TEXT_MAX_BYTES
from contracts.policy import (
    POLICY_ID,
    Decision,
    PolicyDecide,
    PolicyDiff,
    PolicyDifference,
    PolicyEvent,
    PolicyPut,
    PolicyView,
)
from contracts.requests import Nothing
from services.policy_gateway.audit.reading import AuditReader
from services.policy_gateway.calls.judging import Judge
from services.policy_gateway.decision.roles import Roles, parse_roles
from services.policy_gateway.decision.verdict import Allow
from services.policy_gateway.policy.book import PolicyBook, Version
from services.policy_gateway.policy.decider import Policy, PutPolicy
from services.policy_gateway.policy.diff import difference
from services.policy_gateway.policy.text_lines import line_of
from services.runtime.actor import ActorHost
from services.runtime.rpc import Caller

CANDIDATE: Final = -1
"""The version of a policy that is only tried."""


class PolicyHandlers:
    """Answers the verbs about what may be done."""

    def __init__(
        self, *, judge: Judge, book: PolicyBook, host: ActorHost[PutPolicy, Policy, PolicyEvent], reader: AuditReader
    ) -> None:
        self._judge, self._book, self._host, self._reader = judge, book, host, reader

    async def decide(self, request: PolicyDecide, _caller: Caller) -> Decision:
        """The verdict on a call that is not made."""
        verdict, version = self._judge.dry(request.role, request.tool, request.args, request.opts, request.workspace)
        if isinstance(verdict, Allow):
            return Decision("allow", None, verdict.rule, {"timeout_ms": verdict.timeout_ms}, version.number)
        return Decision("deny", verdict.code, verdict.rule, verdict.detail, version.number)

    async def roles(self, _request: Nothing, _caller: Caller) -> PolicyView:
        """The policy in force."""
        return view(self._book.current)

    async def put(self, request: PolicyPut, caller: Caller) -> PolicyView:
        """Put a text in force. Raises Rejected("bad_request") with field and line when it is none."""
        roles = read_policy(request.text)
        outcome = await self._host.ask(
            POLICY_ID, PutPolicy(request.text, roles.digest), message_id=caller.message_id, by=caller.by,
            corr=caller.corr,
        )  # fmt: skip
        if outcome.state.stored is not None:
            self._book.replace(outcome.state.stored)
        return view(self._book.current)

    async def diff(self, request: PolicyDiff, _caller: Caller) -> PolicyDifference:
        """What this text would have decided on the calls of the past."""
        roles = read_policy(request.text)
        candidate = Version(CANDIDATE, roles.digest, request.text, roles)
        return await difference(self._reader, self._judge, candidate, request)


def read_policy(text: str) -> Roles:
    """The roles that a text says. Raises Rejected("bad_request") naming field and line, or too_large."""
    if len(text.encode()) > POLICY_TEXT_MAX_BYTES:
        raise Rejected("too_large", "the policy is too long", field="text", max=POLICY_TEXT_MAX_BYTES)
    try:
        return parse_roles(text)
    except Rejected as error:
        line = line_of(text, str(error.detail.get("field", "")), error.message)
        if line is None:
            raise
        raise Rejected(error.code, error.message, **{**error.detail, "line": line}) from error


def view(version: Version) -> PolicyView:
    """A version as people see it."""
    document: dict[str, Any] = msgspec.to_builtins(version.roles.document)
    return PolicyView(version.number, version.digest, document, version.text)
