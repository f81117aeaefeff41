"""The tools by the plan they carry out: the one place where an allowed call becomes an effect."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import DockerPlan, GitPlan, Plan, ShellPlan
from services.policy_gateway.places import Places
from services.policy_gateway.tools.tool import Ticket, Tool

HEAVY: Final[frozenset[type[Any]]] = frozenset({ShellPlan, GitPlan, DockerPlan})
"""Plans that start programs: fewer of them run at once."""
CLEAN_UP_S: Final = 2.0
"""A tool keeps the deadline itself; one that does not is cut so much later."""


class Toolkit:
    """Carries plans out, only so many at a time, and never all of them for one role."""

    def __init__(self, tools: Mapping[type[Any], Tool[Any]], *, light: int, heavy: int) -> None:
        self._tools = tools
        self._light, self._heavy = Places(light), Places(heavy)

    async def run(self, plan: Plan, ticket: Ticket, timeout_ms: int) -> Any:
        """Carry `plan` out before the ticket's deadline; raises Rejected when that fails."""
        tool = self._tools.get(type(plan))
        if tool is None:
            raise Rejected("sandbox_unavailable", f"there is no tool for a {type(plan).__name__}")
        slots = self._heavy if type(plan) in HEAVY else self._light
        guard = asyncio.timeout_at(ticket.deadline_s + CLEAN_UP_S)
        try:
            async with guard:
                try:
                    async with asyncio.timeout_at(ticket.deadline_s):
                        await slots.acquire(ticket.role)
                except TimeoutError:
                    raise Rejected("timeout", "it waited in line until its deadline", timeout_ms=timeout_ms) from None
                try:
                    return await tool.run(plan, ticket)
                except Rejected as error:
                    if error.code != "timeout":
                        raise
                    # Told as it was asked for, whatever was left of it when the tool began.
                    raise Rejected("timeout", error.message, **{**error.detail, "timeout_ms": timeout_ms}) from error
                finally:
                    slots.release(ticket.role)
        except TimeoutError:
            if guard.expired():
                raise Rejected("timeout", timeout_ms=timeout_ms) from None
            raise
