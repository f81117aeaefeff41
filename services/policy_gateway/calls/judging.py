"""From a call to its verdict: the edge looks the facts up, the pure decision judges."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, get_args

from contracts.errors import Rejected
from contracts.policy import ToolDecided
from contracts.task import ADMIN
from services.policy_gateway.calls.call import Call
from services.policy_gateway.calls.fetch_counts import FetchCounts
from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.verdict import Allow, Deny, Verdict
from services.policy_gateway.policy.book import PolicyBook, Version
from services.policy_gateway.releases import Releases
from services.policy_gateway.run_facts import Bound, RunFacts
from services.policy_gateway.tools.tool import Workspace
from services.policy_gateway.workspaces import WorkspaceProfile
from services.runtime.clock import Clock
from services.runtime.metrics import Metrics

Decide = Callable[..., Verdict]
PROFILE_KEPT_S: Final = 1.0
PROFILES: Final[tuple[str, ...]] = get_args(WorkspaceProfile)


class WorkspaceBook(Protocol):
    """Where workspaces are found by name; None names the default one."""

    def find(self, name: str | None) -> Workspace:
        """The workspace with its real folders. Raises Rejected("workspace_not_found")."""
        ...


class Judgement(NamedTuple):
    """A verdict with what it was made from. `missing` is why there is no workspace, when there is none."""

    verdict: Verdict
    version: Version
    workspace: Workspace | None
    missing: Rejected | None
    bound: Bound | None


class Judge:
    """Judges calls by the policy in force."""

    def __init__(
        self, *, decide: Decide, book: PolicyBook, runs: RunFacts, releases: Releases,
        workspaces: WorkspaceBook, fetches: FetchCounts, clock: Clock, metrics: Metrics,
        auto_admin: bool, admin_calls: bool = True, engine_sockets: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self._decide, self._book, self._runs, self._workspaces = decide, book, runs, workspaces
        self._releases = releases
        self._fetches, self._clock, self._metrics = fetches, clock, metrics
        self._auto_admin, self._admin_calls = auto_admin, admin_calls
        self._facts = Facts(mem_bytes_max=memory_bytes(), engine_sockets=engine_sockets)
        self._profiles: dict[str | None, tuple[float, str]] = {}

    async def judge(self, call: Call) -> Judgement:
        """The verdict on a call. Raises Rejected when the call names no task that is at this attempt."""
        bound = await self._runs.bound(call.of, call.tool, call.asked) if call.of is not None else None
        workspace, missing = self._workspace(bound.workspace if bound else call.asked.workspace)
        facts = self._facts._replace(profile=workspace.profile if workspace else PROFILES[0])
        if bound is not None:
            fetched = await self._fetches.count(call.of, bound.begun_at) if call.tool == "http" and call.of else 0
            facts = facts._replace(bound_role=bound.role, bound_tools=bound.tools, calls_made=fetched)
        else:
            # Outside of tasks only a person may do what needs a human, and only the subject of this role is a person's:
            # by another name of it, or in another role that needs a human, anybody might ask.
            persons = call.role == ADMIN and self._admin_calls
            facts = facts._replace(approved=self._auto_admin or persons)
        if call.asked.barred:
            facts = facts._replace(bound_tools=(facts.bound_tools or frozenset()) - {call.tool})
        version = self._book.current
        unproven = await self._unproven(call, bound, version)
        if bound is not None:
            facts = facts._replace(approved=unproven is None)
        began_s = self._clock.monotonic_s()
        verdict = self._verdict(version, call, facts)
        if workspace is None and isinstance(verdict, Deny):
            verdict = self._without_workspace(version, call, facts, verdict)
        self._metrics.observe("htdag_policy_decide_seconds", self._clock.monotonic_s() - began_s)
        if bound is not None and not of_a_stranger(verdict):
            _check_own(bound, verdict, unproven)
        return Judgement(verdict, version, workspace, missing, bound)

    async def check_place(self, call: Call, judgement: Judgement) -> None:
        """Raise Rejected for a fetch that was allowed beside so many others that its task has used them up.

        Whoever asks at once is told the same count; which of them came first is only known once all are stored.
        """
        bound, most = judgement.bound, judgement.version.roles.rights[call.role].calls_max
        if call.of is None or bound is None or call.tool != "http" or most is None:
            return
        place = await self._fetches.place(call.of, bound.begun_at, call.id)
        if place > most:
            raise Rejected("call_limit_exceeded", tool="http", max=most, made=place - 1)

    def dry(self, role: str, tool: str, args: Any, opts: Any, workspace: str | None) -> tuple[Verdict, Version]:
        """The verdict on a call that belongs to no task, without a trace. Raises Rejected("workspace_not_found")."""
        version = self._book.current
        facts = self._facts._replace(profile=self._profile(workspace))
        return self._decide(version.roles, role, tool, args, opts, facts), version

    def again(self, entry: ToolDecided, args: Any, version: Version) -> Verdict:
        """The verdict that another version gives on a call of the past."""
        bound = entry.role if entry.run_id and entry.code != "role_mismatch" else None
        facts = self._facts._replace(profile=entry.profile or "seed", bound_role=bound)
        return self._decide(version.roles, entry.role, entry.tool, args, entry.opts, facts)

    async def _unproven(self, call: Call, bound: Bound | None, version: Version) -> Rejected | None:
        """Why no human is known to have released the task of a call that needs one; None when that is proven."""
        rights = version.roles.rights.get(call.role)
        if self._auto_admin or call.of is None or bound is None or rights is None or not rights.approval:
            return None
        if bound.stale is not None or bound.not_its is not None:
            return Rejected("approval_required")  # it is refused whoever released it
        try:
            await self._releases.check(call.of, bound)
        except Rejected as error:
            return error
        return None

    def _verdict(self, version: Version, call: Call, facts: Facts) -> Verdict:
        return self._decide(version.roles, call.role, call.tool, call.asked.args, call.asked.opts, facts)

    def _without_workspace(self, version: Version, call: Call, facts: Facts, refused: Deny) -> Verdict:
        """Nobody knows the profile of a workspace that is not there: what any profile allows is not forbidden by it."""
        others = (self._verdict(version, call, facts._replace(profile=profile)) for profile in PROFILES[1:])
        return next((verdict for verdict in others if isinstance(verdict, Allow)), refused)

    def _workspace(self, name: str | None) -> tuple[Workspace | None, Rejected | None]:
        """A workspace that is missing is no reason to refuse: the verdict comes first, the failure after it."""
        try:
            return self._workspaces.find(name), None
        except Rejected as error:
            return None, error

    def _profile(self, name: str | None) -> str:
        now_s = self._clock.monotonic_s()
        known = self._profiles.get(name)
        if known is None or known[0] < now_s:
            if len(self._profiles) > 1_000:
                self._profiles.clear()
            known = self._profiles[name] = (now_s + PROFILE_KEPT_S, self._workspaces.find(name).profile)
        return known[1]


def _check_own(bound: Bound, verdict: Verdict, unproven: Rejected | None) -> None:
    """Refuse what is no call of its task, or names a release that is none: neither uses up a call of the task."""
    for wrong in (bound.stale, bound.not_its):
        if wrong is not None:
            raise wrong
    wanting = isinstance(verdict, Deny) and verdict.code == "approval_required"
    if wanting and unproven is not None and unproven.code != "approval_required":
        raise unproven


def of_a_stranger(verdict: Verdict) -> bool:
    """Whether the call claims a role that is not the task's: that is told whether or not the task is still at work."""
    return isinstance(verdict, Deny) and verdict.rule in ("role.known", "role.bound")


def memory_bytes() -> int:
    """The memory of this machine, or of the control group this process is in when that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total
