"""The tools by the plan they carry out: the one place where an allowed call becomes an effect."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import DockerPlan, GitPlan, Plan, ShellPlan
from services.policy_gateway.places import Places
from services.policy_gateway.tools.tool import Ticket, Tool
from services.policy_gateway.turns import Turns, access_of

HEAVY: Final[frozenset[type[Any]]] = frozenset({ShellPlan, GitPlan, DockerPlan})
"""Plans that start programs: fewer of them run at once."""
CLEAN_UP_S: Final = 2.0
"""A tool keeps the deadline itself; one that does not is cut so much later."""


class Toolkit:
    """Carries plans out: so many at a time, not all for one role, and in a workspace nothing beside what changes it."""

    def __init__(
        self, tools: Mapping[type[Any], Tool[Any]], *, light: int, heavy: int, turns: Turns | None = None
    ) -> None:
        self._tools, self._turns = tools, turns or Turns()
        self._light, self._heavy = Places(light), Places(heavy)

    async def run(self, plan: Plan, ticket: Ticket, timeout_ms: int) -> Any:
        """Carry `plan` out before the ticket's deadline; raises Rejected when that fails."""
        tool = self._tools.get(type(plan))
        if tool is None:
            raise Rejected("sandbox_unavailable", f"there is no tool for a {type(plan).__name__}")
        guard = asyncio.timeout_at(ticket.deadline_s + CLEAN_UP_S)
        try:
            async with guard, self._room(plan, ticket, timeout_ms):
                try:
                    return await tool.run(plan, ticket)
                except Rejected as error:
                    if error.code != "timeout":
                        raise
                    # Told as it was asked for, whatever was left of it when the tool began.
                    raise Rejected("timeout", error.message, **{**error.detail, "timeout_ms": timeout_ms}) from error
        except TimeoutError:
            if guard.expired():
                raise Rejected("timeout", timeout_ms=timeout_ms) from None
            raise

    @asynccontextmanager
    async def _room(self, plan: Plan, ticket: Ticket, timeout_ms: int) -> AsyncIterator[None]:
        """The plan's turn in its workspace, then a slot: who waits for a turn takes no slot from other workspaces."""
        access, loop = access_of(plan), asyncio.get_running_loop()
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout_at(ticket.deadline_s):
                    if access is not None:
                        await held.enter_async_context(self._turns.take(str(ticket.workspace.code), access))
                    places = self._heavy if type(plan) in HEAVY else self._light
                    await places.acquire(ticket.role)
                    held.callback(places.release, ticket.role)
            except TimeoutError:
                raise Rejected("timeout", "it waited in line until its deadline", timeout_ms=timeout_ms) from None
            if loop.time() >= ticket.deadline_s:  # what finds room at once never meets the timeout
                raise Rejected("timeout", "its deadline has passed already", timeout_ms=timeout_ms)
            yield
