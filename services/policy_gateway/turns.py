"""Whose turn it is in a workspace: who may change its files has it alone, who looks at all of them shares it.

Turns are given in the order of asking, so that neither readers nor writers starve. Without them a git command of one
agent would meet what another is just building: half a commit, or a repository that was not there a moment before.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal, NamedTuple

from services.policy_gateway.decision.plans import DockerPlan, GitPlan, Plan, ShellPlan, WritePlan
from services.runtime.metrics import Metrics

Access = Literal["shared", "alone"]
GIT_LOOKS: Final = frozenset(
    {"status", "diff", "log", "show", "rev-parse", "describe", "shortlog", "blame", "grep", "ls-files", "reflog"}
    | {"branch", "tag"}
)
"""Git commands that only look when they move no ref; any other may change the index or files."""
WAITING: Final = "htdag_workspace_calls_waiting"
WAITED: Final = "htdag_workspace_wait_seconds"


def access_of(plan: Plan) -> Access | None:
    """The turn that a plan needs; None where it needs none.

    Reading one file needs none: files are replaced in one step, and no run of tests must hold up who reads. Fetching
    and Lua touch no file at all.
    """
    match plan:
        case WritePlan() | ShellPlan():
            return "alone"
        case GitPlan():
            return "shared" if plan.argv[0] in GIT_LOOKS and not plan.writes else "alone"
        case DockerPlan():
            if not plan.mounts:
                return None
            return "shared" if all(mount.read_only for mount in plan.mounts) else "alone"
        case _:
            return None


class _Waiter(NamedTuple):
    access: Access
    called: "asyncio.Future[None]"


class _Line:
    """Those who are in one workspace, and those who wait for it."""

    def __init__(self) -> None:
        self.sharing = 0
        self.alone = False
        self.waiting: deque[_Waiter] = deque()

    def free_for(self, access: Access) -> bool:
        return not self.alone and (access == "shared" or not self.sharing)

    def enter(self, access: Access) -> None:
        if access == "alone":
            self.alone = True
        else:
            self.sharing += 1

    def leave(self, access: Access) -> None:
        if access == "alone":
            self.alone = False
        else:
            self.sharing -= 1
        self.call_next()

    def call_next(self) -> None:
        """Let in who is first in line, and the sharers behind a sharer. Whoever gave up is passed over."""
        while self.waiting:
            first = self.waiting[0]
            if not first.called.done():
                if not self.free_for(first.access):
                    return
                self.enter(first.access)
                first.called.set_result(None)
            self.waiting.popleft()


class Turns:
    """The turns of all workspaces of this gateway."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics
        self._lines: dict[str, _Line] = {}
        self._waiting = 0

    @asynccontextmanager
    async def take(self, workspace: str, access: Access) -> AsyncIterator[None]:
        """Hold the turn; whoever waits too long is to be cancelled, which costs the others nothing."""
        line = self._lines.setdefault(workspace, _Line())
        if line.waiting or not line.free_for(access):
            await self._wait(workspace, line, access)
        else:
            line.enter(access)
        try:
            yield
        finally:
            line.leave(access)
            self._forget(workspace, line)

    async def _wait(self, workspace: str, line: _Line, access: Access) -> None:
        loop = asyncio.get_running_loop()
        began_s, waiter = loop.time(), _Waiter(access, loop.create_future())
        line.waiting.append(waiter)
        self._count(1)
        try:
            await waiter.called
        except asyncio.CancelledError:
            if not waiter.called.cancelled():
                line.leave(access)  # called at the very moment of giving up
            else:
                line.call_next()
            self._forget(workspace, line)
            raise
        finally:
            self._count(-1)
            if self._metrics is not None:
                self._metrics.observe(WAITED, loop.time() - began_s, access=access)

    def _count(self, change: int) -> None:
        self._waiting += change
        if self._metrics is not None:
            self._metrics.set(WAITING, self._waiting)

    def _forget(self, workspace: str, line: _Line) -> None:
        if not line.waiting and not line.alone and not line.sharing and self._lines.get(workspace) is line:
            del self._lines[workspace]
